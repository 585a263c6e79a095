"""The usage stream's messages as bytes.

An event is encoded once, when it is sent: its later changes do not matter, the
buffer's bound is exact, and sending it again costs nothing. Protobuf's wire
format makes a frame the concatenation of its parts (each event prefixed by its
tag and length), so a chunk is also the encoding of a frame with one event. The
tags tell the two kinds of events apart: a frame's parts may come in any order,
and whoever reads it has those of either kind together, in their order.
"""

from collections.abc import Iterable
from typing import Final, TypeAlias

from zaaz.credits.v1.feature_usage_log_pb2 import FeatureUsageEvent
from zaaz.credits.v1.usage_service_pb2 import (
    IngestUsageRequest,
    OpenUsageStream,
    UsageEvent,
    UsageFrame,
)

from zaaz_client.errors import MessageTooLarge

StreamEvent: TypeAlias = UsageEvent | FeatureUsageEvent
"""What a usage stream carries."""

MAX_EVENT_BYTES: Final = 65_536
"""No UsageEvent within the contract's own bounds comes near it (24 KiB)."""

MAX_FEATURE_EVENT_BYTES: Final = 262_144
"""Of a FeatureUsageEvent the server keeps at most 16 KiB of each of its four parts."""

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
_FEATURE_EVENT_TAG: Final = _tag(UsageFrame.FEATURE_EVENTS_FIELD_NUMBER)
_EVENT_PREFIXES: Final = tuple(_EVENT_TAG + _varint(size) for size in range(_CACHED_LENGTHS))


def encode_open(writer_id: str) -> bytes:
    """The first request of a stream."""
    return IngestUsageRequest(open=OpenUsageStream(writer_id=writer_id)).SerializeToString()


def encode_event(event: StreamEvent) -> bytes:
    """`event` as a chunk of a frame. MessageTooLarge past the bound of its kind."""
    data = event.SerializeToString()
    size = len(data)
    if isinstance(event, FeatureUsageEvent):
        _check_size(size, MAX_FEATURE_EVENT_BYTES)
        return _FEATURE_EVENT_TAG + _varint(size) + data
    if size < _CACHED_LENGTHS:
        return _EVENT_PREFIXES[size] + data
    _check_size(size, MAX_EVENT_BYTES)
    return _EVENT_TAG + _varint(size) + data


def decode_event(chunk: bytes) -> StreamEvent:
    """The event of a chunk."""
    frame = UsageFrame.FromString(chunk)
    return frame.feature_events[0] if is_feature_event(chunk) else frame.events[0]


def is_feature_event(chunk: bytes) -> bool:
    """Whether the chunk is a FeatureUsageEvent's."""
    return chunk.startswith(_FEATURE_EVENT_TAG)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise MessageTooLarge(f"the event has {size:,} bytes; at most {limit:,} are taken")


def encode_frame(offset: int, chunks: Iterable[bytes]) -> bytes:
    """The request that carries `chunks` as a frame."""
    body = UsageFrame(offset=offset).SerializeToString() + b"".join(chunks)
    return _FRAME_TAG + _varint(len(body)) + body
