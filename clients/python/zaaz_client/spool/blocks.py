"""Blocks: what one fsync makes durable. Free of I/O but for the file it is given.

    "zsp1"  body bytes u32  position u64  events u32  crc32 u32 | (bytes u32, event) ...

A block is written only once the one before it is durable. So bytes that are no
block are either what a crash has left of the last write, when no block follows
them, or damage.
"""

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import BinaryIO, Final, NamedTuple
from zlib import crc32

MAX_BLOCK_BYTES: Final = 1024 * 1024
"""A block is closed at it; the event that passes it still goes in."""
_MAGIC: Final = b"zsp1"
_HEAD: Final = Struct("<4sIQI")
_CRC: Final = Struct("<I")
_LENGTH: Final = Struct("<I")
_HEADER_BYTES: Final = _HEAD.size + _CRC.size


class BadBlock(Exception):  # noqa: N818 - judged by whoever reads: torn, or damaged
    """There are bytes, and they are not the block that belongs here."""


class Header(NamedTuple):
    """Of a block: `position` counts the events before it, `end` has its own added."""

    body_bytes: int
    position: int
    events: int
    crc: int

    @property
    def end(self) -> int:
        """The position after its last event."""
        return self.position + self.events

    @property
    def size(self) -> int:
        """The bytes of the whole block."""
        return _HEADER_BYTES + self.body_bytes


def encode_block(position: int, events: Sequence[bytes]) -> bytes:
    """The block of these events, the first of which is at `position`."""
    body = b"".join(part for event in events for part in (_LENGTH.pack(len(event)), event))
    head = _HEAD.pack(_MAGIC, len(body), position, len(events))
    return head + _CRC.pack(crc32(body, crc32(head))) + body


def read_header(file: BinaryIO, position: int) -> Header | None:
    """The header of the block at `position`, where `file` stands; None at the file's end."""
    data = file.read(_HEADER_BYTES)
    if not data:
        return None
    if len(data) < _HEADER_BYTES:
        raise BadBlock
    header = _header(data)
    if header is None or header.position != position:
        raise BadBlock
    return header


def read_events(file: BinaryIO, header: Header) -> list[bytes]:
    """The events of the block whose header was read. BadBlock when they are not its."""
    body = file.read(header.body_bytes)
    if not _agrees(header, body):
        raise BadBlock
    return list(_events(body))


def whole_blocks(data: bytes) -> Iterator[list[bytes]]:
    """The events of each whole block in `data`, wherever it begins."""
    start = data.find(_MAGIC)
    while start >= 0:
        header = _header(data[start : start + _HEADER_BYTES])
        end = start + header.size if header else start
        body = data[start + _HEADER_BYTES : end]
        if header and _agrees(header, body):
            yield list(_events(body))
            start = data.find(_MAGIC, end)
        else:
            start = data.find(_MAGIC, start + 1)


def _header(data: bytes) -> Header | None:
    if len(data) < _HEADER_BYTES:
        return None
    magic, body_bytes, position, events = _HEAD.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _HEAD.size)
    return Header(body_bytes, position, events, crc) if magic == _MAGIC and events else None


def _agrees(header: Header, body: bytes) -> bool:
    if len(body) != header.body_bytes:
        return False
    head = _HEAD.pack(_MAGIC, header.body_bytes, header.position, header.events)
    return crc32(body, crc32(head)) == header.crc


def _events(body: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(body):
        (size,) = _LENGTH.unpack_from(body, place)
        place += _LENGTH.size
        yield body[place : place + size]
        place += size
