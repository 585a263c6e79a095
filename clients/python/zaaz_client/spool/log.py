"""The spool's events on disk, in order, by their offsets on the server. Blocking: for one thread.

    released          end of the oldest segment        end
        |  segment (whole)   |  ...  |  last segment    |  (torn bytes)
        +--------------------+-------+------------------+

Events are appended at the right, a block and an fsync at a time; segments whose
events are all acknowledged go at the left. Nothing else is ever written to
them, so a crash can tear the last block only.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from zaaz_client.errors import OffsetOutOfRange
from zaaz_client.spool.blocks import encode_block
from zaaz_client.spool.errors import (
    SpoolDamaged,
    SpoolError,
    SpoolFull,
    SpoolOfAnotherWriter,
)
from zaaz_client.spool.files import Directory
from zaaz_client.spool.segments import Place, Segment, list_segments

MAX_SEGMENT_BYTES: Final = 8 * 1024 * 1024
"""The next block begins another segment."""
SEGMENTS: Final = 4
"""And no later than at this part of the spool, so that space comes back while it fills."""

_log = logging.getLogger("zaaz_client")


class SpoolLog:
    """Opened, told where the server stands by `meet`, then appended to, read and released."""

    def __init__(self, path: Path, writer_id: str, max_bytes: int) -> None:
        path = path.absolute()  # wherever the process goes
        self._max_bytes = max_bytes
        self._segment_bytes = min(MAX_SEGMENT_BYTES, max_bytes // SEGMENTS)
        self._segments: list[Segment] = []
        self._is_named = True
        self._reading: tuple[Segment, Place] | None = None
        self._directory = Directory(path)
        try:
            self._directory.open()
            self._note = self._directory.note_for(writer_id)
            self._segments = list_segments(path)
            self._cut_torn_bytes()
        except OSError as error:
            self._directory.close()
            raise SpoolError(f"the spool {path} cannot be used: {error}") from error
        except BaseException:
            self._directory.close()
            raise

    def _cut_torn_bytes(self) -> None:
        torn = self._segments[-1].measure() if self._segments else 0
        if torn:
            last = self._segments[-1]
            os.truncate(last.path, last.size)
            _log.warning(
                "spool %s: cut %d bytes that were being written at byte %d when a process ended",
                last.path,
                torn,
                last.size,
            )

    # What there is

    @property
    def path(self) -> Path:
        """The directory."""
        return self._directory.path

    @property
    def first(self) -> int | None:
        """The offset of the oldest event; None when the server has to say where to begin."""
        return self._segments[0].first + self._note.shift if self._segments else None

    @property
    def end(self) -> int | None:
        """The offset after the newest event; None as for `first`."""
        return self._segments[-1].end + self._note.shift if self._segments else None

    @property
    def used_bytes(self) -> int:
        """What the segments take."""
        return sum(segment.size for segment in self._segments)

    @property
    def releasable_at(self) -> int | None:
        """Once this offset is acknowledged `release` frees space."""
        if not self._segments:
            return None
        oldest = self._segments[0]
        sealed = len(self._segments) > 1
        worth_it = sealed or oldest.size >= self._segment_bytes // 2
        return oldest.end + self._note.shift if worth_it else None

    # Where the server stands

    def begin_alone(self) -> None:
        """Take events before the server has been heard of; it may stand where nobody knows.

        SpoolError when that cannot be noted.
        """
        if self._segments and self._note.unconfirmed is None:
            end = self._segments[-1].end
            try:
                self._note = self._directory.keep(self._note, unconfirmed=end)
            except OSError as error:
                raise SpoolError(f"the spool {self.path} cannot be used: {error}") from error

    def meet(self, next_offset: int, client_id: str = "") -> int:
        """The server goes on there, what is before it is delivered; how many events are renumbered.

        Those events are sent again, and none is billed twice: their usage_keys
        tell. It happens when the server has more of this writer than the spool
        has, as when the directory comes out of a backup, or when events were
        delivered while the disk took none. OffsetOutOfRange when the server has
        less than it had acknowledged; SpoolOfAnotherWriter for a key of another client.
        """
        self._check_client(client_id)
        note = self._note
        if not self._segments:
            return 0
        first, end = self._segments[0].first, self._segments[-1].end
        sent = end if note.unconfirmed is None else note.unconfirmed
        stands = next_offset - note.shift
        if stands < first:
            raise OffsetOutOfRange(
                f"the server goes on at offset {next_offset:,} of this writer, but had acknowledged"
                f" {first + note.shift:,}: its data was lost or is another database's; what the"
                f" spool {self.path} holds can be sent by another writer_id"
            )
        shift = note.shift if stands <= sent or first == end else next_offset - first
        if shift != note.shift or note.unconfirmed is not None:
            self._note = self._directory.keep(note, shift=shift, unconfirmed=None)
        return 0 if shift == note.shift else end - first

    def _check_client(self, client_id: str) -> None:
        note = self._note
        if not client_id or note.client_id == client_id:  # older servers do not say it
            return
        if note.client_id:
            raise SpoolOfAnotherWriter(
                f"{self.path} is the spool of a writer of client {note.client_id!r}, and the API"
                f" key is of client {client_id!r}: what is billed already would be billed again"
            )
        self._note = self._directory.keep(note, client_id=client_id)

    # Events

    def append(self, offset: int, events: Sequence[bytes], acknowledged: int) -> None:
        """Make events durable, the first at `offset`. SpoolFull, and they are not there.

        An offset past the end says that all that is here is acknowledged.
        """
        position = offset - self._note.shift
        block = encode_block(position, events)
        try:
            self._make_room(position, len(block), acknowledged)
            segment = self._last(position)
            self._name()
            segment.append(block, position + len(events))
        except OSError as error:
            raise SpoolFull(f"the disk of spool {self.path} takes nothing: {error}") from error

    def _make_room(self, position: int, size: int, acknowledged: int) -> None:
        if self._segments and position > self._segments[-1].end:
            self._remove(len(self._segments))
        if self.used_bytes + size > self._max_bytes:
            self.release(acknowledged, everything=True)
        if self.used_bytes + size > self._max_bytes:
            raise SpoolFull(
                f"the spool {self.path} has {self.used_bytes:,} bytes; max_bytes is"
                f" {self._max_bytes:,}"
            )

    def _last(self, position: int) -> Segment:
        """The segment to append to."""
        if self._segments and self._segments[-1].size < self._segment_bytes:
            return self._segments[-1]
        return self._start(position)

    def _start(self, position: int) -> Segment:
        segment = Segment(self.path, position, position, 0)
        segment.create()
        if self._segments:
            self._segments[-1].close()
        # It is there, whatever the next step comes to: to be removed as the others are.
        self._segments.append(segment)
        self._is_named = False
        return segment

    def _name(self) -> None:
        """Make the last segment's name durable."""
        if not self._is_named:
            self._directory.sync()
            self._is_named = True

    def read(self, offset: int) -> list[bytes]:
        """Some of the events from `offset` on, which is before `end`. SpoolDamaged."""
        position = offset - self._note.shift
        if self._reading is None or self._reading[1].position != position:
            self._reading = self._seek(position)
        segment, place = self._reading
        if place.position >= segment.end:
            segment, place = self._seek(place.position)
        events, after = segment.read(place)
        self._reading = segment, after
        return events[position - place.position :]

    def _seek(self, position: int) -> tuple[Segment, Place]:
        for segment in self._segments:
            if segment.first <= position < segment.end:
                return segment, segment.find(position)
        raise SpoolDamaged(f"{self.path} at byte 0: event {position:,} is not there")

    def release(self, acknowledged: int, *, everything: bool = False) -> None:
        """Delete the segments whose events are all acknowledged.

        The last one too if it is worth a new file, or `everything` is wanted.
        """
        position = acknowledged - self._note.shift
        if not self._segments:
            return
        *older, last = self._segments
        self._remove(sum(segment.end <= position for segment in older))
        worth_it = last.size >= self._segment_bytes // 2 or (everything and last.size)
        if worth_it and last.end <= position:
            self._start(last.end)
            self._name()
            self._remove(1)

    def _remove(self, count: int) -> None:
        """Delete the oldest, so that at any moment what is left is without a gap."""
        for _ in range(count):
            segment = self._segments[0]
            segment.close()
            segment.path.unlink(missing_ok=True)
            self._directory.sync()
            del self._segments[0]

    def close(self, acknowledged: int = 0) -> None:
        """Close, and leave no events behind that are acknowledged."""
        try:
            self.release(acknowledged, everything=True)
            for segment in self._segments:
                segment.close()
        except OSError as error:
            _log.warning("spool %s: not tidied: %s", self.path, error)
        finally:
            self._directory.close()
