"""What a usage stream still owes the server: bounded, in order, free of I/O.

    acknowledged          sent_through (most ever)       next_offset
        |   unanswered frames   |        pending events       |
        +-----------------------+-----------------------------+

Senders append at the right, the session cuts frames from pending, answers
move `acknowledged`; after a reconnect everything unanswered is pending again.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Final

from zaaz_client.errors import BufferFull, OffsetOutOfRange, StreamClosed, ZaazError
from zaaz_client.wire import is_feature_event

MAX_FRAME_BYTES: Final = 1024 * 1024
"""A frame ends before it; servers take messages of 4 MiB."""
_FRAME_EVENTS: Final = 500
"""Until the server has said how many events a frame takes."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Events that were sent together: chunks of `wire.encode_event`.

    In the order of their offsets here. The server counts a frame's events of
    either kind together, but it settles a frame as a whole: the offsets before
    and after it, which is all that is resumed from, are the same for both.
    """

    offset: int
    chunks: tuple[bytes, ...]

    @property
    def end(self) -> int:
        """The offset after its last event."""
        return self.offset + len(self.chunks)

    def place(self, index: int) -> int:
        """Which chunk the server means by its index: it counts feature events after the others."""
        kinds = [is_feature_event(chunk) for chunk in self.chunks]
        return sorted(range(len(kinds)), key=kinds.__getitem__)[index]


class UsageQueue:
    """The events of one writer that are not acknowledged. Offsets count events."""

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._bytes = 0
        self._pending: deque[bytes] = deque()
        self._room = asyncio.Event()
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._failure: ZaazError | None = StreamClosed(
            "the usage stream is not open: use `async with`"
        )
        self.unanswered: deque[Frame] = deque()
        self.acknowledged = 0
        self.sent_through = 0
        self.next_offset = 0
        """The offset that the next event gets."""
        self.frame_events = _FRAME_EVENTS
        """How many events a frame takes at most."""
        self.pending_since = 0.0
        """When the first pending event may have begun to wait, by time.monotonic()."""
        self._progress_time = 0.0
        self.hurry_through = 0
        """Events before it are sent without lingering."""
        self.closing = False
        self.work = asyncio.Event()
        """Set when the session's writer should look again."""
        self.on_advance: Callable[[int], None] | None = None
        """Told each time that `acknowledged` moves."""

    # Senders

    def put_nowait(self, chunk: bytes) -> int:
        """Append an event and return its offset. BufferFull when there is no room."""
        if not self._has_room(chunk):
            self.hurry()
            raise BufferFull(f"{self.unacknowledged:,} events wait for their acknowledgement")
        return self._append(chunk)

    async def put(self, chunk: bytes) -> int:
        """Append an event once there is room. When cancelled it is not appended."""
        if not self.next_offset % self.frame_events:
            await asyncio.sleep(0)  # a full frame may go out while the caller goes on
        while not self._has_room(chunk):
            self.hurry()
            self._room.clear()
            await self._room.wait()
        return self._append(chunk)

    def offer(self, chunk: bytes) -> bool:
        """Append an event if there is room; whether there was."""
        if not self._has_room(chunk):
            return False
        self._append(chunk)
        return True

    async def wait_acknowledged(self, through: int | None = None) -> None:
        """Wait until the events before `through` are acknowledged, or all that were put."""
        target = self.next_offset if through is None else through
        if self.acknowledged >= target:
            return
        self.check()
        self.hurry(target)
        future = asyncio.get_running_loop().create_future()
        self._waiters.append((target, future))
        await future

    def hurry(self, through: int | None = None) -> None:
        """Do not linger over what is pending, nor over what comes to be before `through`."""
        target = self.next_offset if through is None else through
        self.hurry_through = max(self.hurry_through, target)
        self.work.set()

    def check(self) -> None:
        """Raise what ended the stream, if anything did."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def _has_room(self, chunk: bytes) -> bool:
        self.check()
        count = self.unacknowledged
        return not count or (
            count < self._max_events and self._bytes + len(chunk) <= self._max_bytes
        )

    def _append(self, chunk: bytes) -> int:
        offset = self.next_offset
        if offset == self.acknowledged:
            self._progress_time = time.monotonic()
        if not self._pending:
            self.pending_since = time.monotonic()
            self.work.set()
        self._pending.append(chunk)
        self._bytes += len(chunk)
        self.next_offset += 1
        if not len(self._pending) % self.frame_events:
            self.work.set()
        return offset

    # The session

    @property
    def cursor(self) -> int:
        """The offset of the first pending event."""
        return self.unanswered[-1].end if self.unanswered else self.acknowledged

    @property
    def pending_events(self) -> int:
        """How many events are not in a frame."""
        return len(self._pending)

    @property
    def unacknowledged(self) -> int:
        """How many events the server has not acknowledged."""
        return self.next_offset - self.acknowledged

    @property
    def finished(self) -> bool:
        """Nothing is owed and nothing more will come."""
        return self.closing and not self.unacknowledged

    def stalled(self, limit_seconds: float | None) -> bool:
        """Whether something is owed and nothing was acknowledged for longer than that."""
        if limit_seconds is None or not self.unacknowledged:
            return False
        return time.monotonic() - self._progress_time > limit_seconds

    def cut(self) -> Frame:
        """Make a frame of the first pending events (there is at least one)."""
        offset = self.cursor
        chunks = [self._pending.popleft()]
        room = MAX_FRAME_BYTES - len(chunks[0])
        while self._pending and len(chunks) < self.frame_events and len(self._pending[0]) <= room:
            room -= len(self._pending[0])
            chunks.append(self._pending.popleft())
        frame = Frame(offset, tuple(chunks))
        self.unanswered.append(frame)
        self.sent_through = max(self.sent_through, frame.end)
        self.pending_since = time.monotonic()
        return frame

    def acknowledge(self) -> None:
        """The oldest unanswered frame is durable."""
        frame = self.unanswered.popleft()
        self._forget(frame.chunks)
        self._advance(frame.end)

    def rewind(self) -> None:
        """What is unanswered has to be sent again."""
        while self.unanswered:
            self._pending.extendleft(reversed(self.unanswered.pop().chunks))
        self.pending_since = 0.0

    def start(self, next_offset: int) -> None:
        """Take over a writer where it stands. Nothing can have been put before."""
        self._failure = None
        self.acknowledged = self.sent_through = self.next_offset = next_offset

    def resume(self, next_offset: int) -> int:
        """Go on where the server stands; how many events it turns out to have.

        OffsetOutOfRange when it has lost events that it had acknowledged, or
        has some that this writer never sent: sending on would lose or bill
        usage without anybody noticing.
        """
        self.rewind()
        self._check_offset(next_offset)
        had = next_offset - self.acknowledged
        self._forget(tuple(self._pending.popleft() for _ in range(had)))
        self._advance(next_offset)
        return had

    def fail(self, error: ZaazError) -> None:
        """End the stream for senders and waiters."""
        self._failure = error
        self._room.set()
        for _, future in self._waiters:
            if not future.done():
                future.set_exception(error)
        self._waiters.clear()

    def chunks(self) -> list[bytes]:
        """Every event that is not acknowledged, in order."""
        framed = chain.from_iterable(frame.chunks for frame in self.unanswered)
        return [*framed, *self._pending]

    def _check_offset(self, next_offset: int) -> None:
        if next_offset < self.acknowledged:
            raise OffsetOutOfRange(
                f"the server goes on at offset {next_offset:,} of this writer, but had acknowledged"
                f" {self.acknowledged:,}: its data was lost or is another database's; use a new"
                " writer_id for what is not acknowledged, and find out what happened before"
            )
        if next_offset > self.sent_through:
            raise OffsetOutOfRange(
                f"the server goes on at offset {next_offset:,} of this writer, but only"
                f" {self.sent_through:,} events were sent: somebody else uses this writer_id"
            )

    def _forget(self, chunks: tuple[bytes, ...]) -> None:
        self._bytes -= sum(map(len, chunks))

    def _advance(self, acknowledged: int) -> None:
        if acknowledged > self.acknowledged:
            self._progress_time = time.monotonic()
        self.acknowledged = acknowledged
        self._room.set()
        self.work.set()
        while self._waiters and self._waiters[0][0] <= acknowledged:
            _, future = self._waiters.popleft()
            if not future.done():
                future.set_result(None)
        if self.on_advance is not None:
            self.on_advance(acknowledged)
