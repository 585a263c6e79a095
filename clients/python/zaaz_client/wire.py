"""The usage stream's messages as bytes.

An event is encoded once, when it is sent: its later changes do not matter, the
buffer's bound is exact, and sending it again costs nothing. Protobuf's wire
format makes a frame the concatenation of its parts (each event prefixed by its
tag and length), so a chunk is also the encoding of a frame with one event.
"""

from collections.abc import Iterable
from typing import Final

from zaaz.credits.v1.usage_service_pb2 import (
    IngestUsageRequest,
    OpenUsageStream,
    UsageEvent,
    UsageFrame,
)

from zaaz_client.errors import MessageTooLarge

MAX_EVENT_BYTES: Final = 65_536
"""No event within the contract's own bounds comes near it (24 KiB)."""

_LENGTH_DELIMITED: Final = 2
_CACHED_LENGTHS: Final = 512


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(field_number: int) -> bytes:
    return _varint(field_number << 3 | _LENGTH_DELIMITED)


_FRAME_TAG: Final = _tag(IngestUsageRequest.FRAME_FIELD_NUMBER)
_EVENT_TAG: Final = _tag(UsageFrame.EVENTS_FIELD_NUMBER)
_EVENT_PREFIXES: Final = tuple(_EVENT_TAG + _varint(size) for size in range(_CACHED_LENGTHS))


def encode_open(writer_id: str) -> bytes:
    """The first request of a stream."""
    return IngestUsageRequest(open=OpenUsageStream(writer_id=writer_id)).SerializeToString()


def encode_event(event: UsageEvent) -> bytes:
    """`event` as a chunk of a frame. MessageTooLarge past MAX_EVENT_BYTES."""
    data = event.SerializeToString()
    size = len(data)
    if size < _CACHED_LENGTHS:
        return _EVENT_PREFIXES[size] + data
    if size > MAX_EVENT_BYTES:
        message = f"the event has {size:,} bytes; at most {MAX_EVENT_BYTES:,} are taken"
        raise MessageTooLarge(message)
    return _EVENT_TAG + _varint(size) + data


def decode_event(chunk: bytes) -> UsageEvent:
    """The event of a chunk."""
    return UsageFrame.FromString(chunk).events[0]


def encode_frame(offset: int, chunks: Iterable[bytes]) -> bytes:
    """The request that carries `chunks` as a frame."""
    body = UsageFrame(offset=offset).SerializeToString() + b"".join(chunks)
    return _FRAME_TAG + _varint(len(body)) + body
