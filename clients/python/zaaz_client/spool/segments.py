"""Segments: files of blocks, each named by the position of its first event."""

import os
from errno import ENOENT
from pathlib import Path
from typing import Final, NamedTuple

from zaaz_client.spool.blocks import BadBlock, read_events, read_header, whole_blocks
from zaaz_client.spool.errors import SpoolDamaged
from zaaz_client.spool.files import FILE_MODE

READ_BYTES: Final = 256 * 1024
"""About so much is read at a time; a block is read whole."""
_SUFFIX: Final = ".log"


class Place(NamedTuple):
    """Where a block begins."""

    position: int
    byte: int


class Segment:
    """One file. `end` is the position after its last event, `size` its durable bytes."""

    def __init__(self, directory: Path, first: int, end: int, size: int) -> None:
        self.path = directory / f"{first:020}{_SUFFIX}"
        self.first = first
        self.end = end
        self.size = size
        self._opened: int | None = None
        self._torn = True
        """There may be bytes behind the durable ones."""

    def create(self) -> None:
        """Make the file, empty. Its name is durable once the directory is synced."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._opened = os.open(self.path, flags, FILE_MODE)
        self._torn = False

    def append(self, block: bytes, end: int) -> None:
        """Make a block durable, after which the segment ends at `end`; or leave it as it was."""
        try:
            if self._opened is None:
                self._opened = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            if not os.fstat(self._opened).st_nlink:
                raise FileNotFoundError(ENOENT, "somebody has removed it", str(self.path))
            if self._torn:
                os.ftruncate(self._opened, self.size)
            self._torn = True
            _write(self._opened, block, self.size)
            os.fsync(self._opened)
        except OSError:
            self._take_back()
            raise
        self._torn = False
        self.size += len(block)
        self.end = end

    def _take_back(self) -> None:
        """After a failed fsync only bytes that are written again are known to be on disk."""
        if self._opened is None:
            return
        try:
            os.ftruncate(self._opened, self.size)
        except OSError:
            pass  # tried again before the next write
        finally:
            self.close()

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            os.close(opened)

    def read(self, place: Place) -> tuple[list[bytes], Place]:
        """Some blocks' events from `place` on (there are some), and the place after them."""
        events: list[bytes] = []
        position, byte = place
        start = byte
        with self.path.open("rb") as file:
            file.seek(byte)
            while position < self.end and byte - start < READ_BYTES:
                try:
                    header = read_header(file, position)
                    if header is None or header.end > self.end:
                        raise BadBlock
                    events += read_events(file, header)
                except BadBlock:
                    raise self._damage(byte) from None
                position, byte = header.end, byte + header.size
        return events, Place(position, byte)

    def find(self, position: int) -> Place:
        """The block that has `position`."""
        place = Place(self.first, 0)
        with self.path.open("rb") as file:
            while True:
                file.seek(place.byte)
                try:
                    header = read_header(file, place.position)
                except BadBlock:
                    header = None
                if header is None:
                    raise self._damage(place.byte)
                if header.end > position:
                    return place
                place = Place(header.end, place.byte + header.size)

    def measure(self) -> int:
        """Read the last segment to learn its `end` and `size`; how many torn bytes are behind it.

        SpoolDamaged when a block follows bytes that are none.
        """
        self.end, self.size = self.first, 0
        with self.path.open("rb") as file:
            try:
                while (header := read_header(file, self.end)) is not None:
                    read_events(file, header)
                    self.end, self.size = header.end, self.size + header.size
            except BadBlock:
                rest = self.rest(self.size)
                if any(whole_blocks(rest)):
                    raise self._damage(self.size) from None
                return len(rest)
        return 0

    def rest(self, byte: int) -> bytes:
        """The file from there on."""
        with self.path.open("rb") as file:
            file.seek(byte)
            return file.read()

    def _damage(self, byte: int) -> SpoolDamaged:
        return SpoolDamaged(f"{self.path} is damaged at byte {byte:,}")


def list_segments(directory: Path) -> list[Segment]:
    """The segments there, oldest first. All end where the next begins; the last is not measured.

    OSError when a file cannot be looked at.
    """
    firsts = sorted(int(path.stem) for path in directory.glob(f"*{_SUFFIX}") if path.stem.isdigit())
    ends = [*firsts[1:], *firsts[-1:]]
    segments = [Segment(directory, *ends_at, 0) for ends_at in zip(firsts, ends, strict=True)]
    for segment in segments:
        segment.size = segment.path.stat().st_size
    return segments


def _write(opened: int, data: bytes, place: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(opened, view, place)
        view, place = view[written:], place + written
