"""Takes events, makes them durable in groups, and says what becomes of them when it cannot."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from zaaz_client.errors import StreamClosed, ZaazError
from zaaz_client.spool.blocks import MAX_BLOCK_BYTES
from zaaz_client.spool.disk import Disk
from zaaz_client.spool.errors import SpoolFull
from zaaz_client.spool.settings import SpoolSettings, WhenFull
from zaaz_client.usage_results import UsageCounters

MANY_EVENTS: Final = 1_000
"""put_many waits for so many together."""
BLOCKS: Final = 8
"""No block is more than about this part of a spool."""

_log = logging.getLogger("zaaz_client")


@dataclass(frozen=True, slots=True)
class _Taken:
    """An event that is not on disk, and who waits for it."""

    event: bytes
    settled: "asyncio.Future[int]"


class SpoolWriter:
    """Events from the left edge of what is not on disk, in order.

        ... on disk ...  base                    next_offset
                          |  taken, not on disk   |

    Normally `base` is where the disk ends. While the disk refuses, and events
    are delivered from memory, it goes on with what the server acknowledges.
    Those events never need the disk again.
    """

    def __init__(
        self,
        disk: Disk,
        settings: SpoolSettings,
        counters: UsageCounters,
        *,
        max_events: int,
        max_bytes: int,
        on_deliverable: Callable[[int, Sequence[bytes]], None],
    ) -> None:
        """`on_deliverable` is told of events that may be sent, and the offset of the first."""
        self._disk = disk
        self._settings = settings
        self._counters = counters
        self._max_events = max_events
        self._max_bytes = max_bytes
        # A block has to find room in a spool that is small, and next to others.
        self._block_bytes = min(MAX_BLOCK_BYTES, settings.max_bytes // BLOCKS)
        self._on_deliverable = on_deliverable
        self._taken: deque[_Taken] = deque()
        self._bytes = 0
        self._disk_turn = asyncio.Lock()
        self._writing = False
        self._failure: ZaazError | None = StreamClosed(
            "the usage stream is not open: use `async with`"
        )
        self._ended = False
        self._finishing = False
        self._room = asyncio.Event()
        self._work = asyncio.Event()
        self._retry = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.base = 0
        self.acknowledged = 0
        self.trouble: SpoolFull | None = None
        """Why the disk takes nothing, while it does not."""

    # Senders

    @property
    def next_offset(self) -> int:
        """What the next event gets."""
        return self.base + len(self._taken)

    @property
    def held_events(self) -> int:
        """How many events are not on disk."""
        return len(self._taken)

    @property
    def deliverable(self) -> int:
        """Events before it may be sent to the server."""
        # While the disk refuses: acknowledged is safer than on disk.
        by_memory = self.trouble is not None and self._settings.when_full is not WhenFull.RAISE
        return self.next_offset if by_memory else self.base

    async def put(self, event: bytes) -> int:
        """Take an event; its offset, once it is safe. SpoolFull as the settings say."""
        await self._wait_for_room(event)
        offset = await self._take(event)
        self._counters.sent += 1
        return offset

    async def put_many(self, events: Sequence[bytes]) -> None:
        """Take up to MANY_EVENTS in order."""
        settled: list[asyncio.Future[int]] = []
        for event in events:
            await self._wait_for_room(event)
            if settled and _is_refused(settled[-1]):
                break  # what comes behind an event that was refused is not taken
            settled.append(self._take(event))
        outcomes = await asyncio.gather(*settled, return_exceptions=True)
        self._counters.sent += sum(isinstance(outcome, int) for outcome in outcomes)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _wait_for_room(self, event: bytes) -> None:
        while not self._has_room(event):
            self._room.clear()
            await self._room.wait()

    def _take(self, event: bytes) -> "asyncio.Future[int]":
        settled: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._taken.append(_Taken(event, settled))
        self._bytes += len(event)
        self._empty.clear()
        self._work.set()
        if self.trouble is not None:
            self._take_in_trouble(self._taken[-1], self.next_offset - 1)
        return settled

    def _has_room(self, event: bytes) -> bool:
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        return not self._taken or (
            len(self._taken) < self._max_events and self._bytes + len(event) <= self._max_bytes
        )

    async def settled(self) -> int:
        """Wait for what was taken so far; the offset before which it all is, or was refused."""
        through = self.next_offset
        if self._taken:
            await asyncio.wait({self._taken[-1].settled})
        return through if self._in_memory else min(through, self.base)

    async def emptied(self) -> None:
        """Wait until nothing is in memory alone. Raises what ended the stream."""
        await self._empty.wait()
        if self._taken and self._failure is not None:
            raise self._failure.with_traceback(None)

    def fail(self, error: ZaazError) -> None:
        """Take nothing more. What the disk is taking is left to it."""
        self._ended = True
        self._failure = error
        self._room.set()
        self._empty.set()
        if self.trouble is not None:
            self._refuse_taken(error)

    def _refuse_taken(self, error: ZaazError) -> None:
        for taken in self._taken:
            _refuse(taken, error)

    # The disk

    async def meet(self, next_offset: int, client_id: str) -> int:
        """The server goes on there; how many events were numbered anew. As SpoolLog.meet."""
        async with self._disk_turn:
            renumbered = await self._disk.run(self._disk.log.meet, next_offset, client_id)
            end = self._disk.log.end
            self._stand(next_offset, next_offset if end is None else max(next_offset, end))
        return renumbered

    async def begin_alone(self) -> None:
        """Go on from the end of what is there. As SpoolLog.begin_alone."""
        async with self._disk_turn:
            log = self._disk.log
            await self._disk.run(log.begin_alone)
            self._stand(log.first or 0, log.end or 0)

    def _stand(self, acknowledged: int, base: int) -> None:
        self.acknowledged = acknowledged
        self.base = base
        if not self._ended:
            self._failure = None

    async def run(self) -> None:
        """Write what is taken, until `finish`."""
        try:
            while not (self._finishing and (self.trouble is not None or not self._taken)):
                await self._work.wait()
                self._work.clear()
                await asyncio.sleep(self._settings.linger_seconds)
                while self._taken and await self._write():
                    pass
                if self._taken and not self._finishing:
                    await self._pause()
        finally:
            self._refuse_taken(self._failure or StreamClosed("the usage stream is closed"))

    def finish(self) -> None:
        """Let `run` end once all is on disk, or the disk refuses."""
        self._finishing = True
        self._work.set()
        self._retry.set()

    async def _pause(self) -> None:
        """Until the disk is worth another try."""
        self._retry.clear()
        try:
            async with asyncio.timeout(self._settings.retry_seconds):
                await self._retry.wait()
        except TimeoutError:
            pass
        self._work.set()

    def retry(self) -> None:
        """There may be room again."""
        self._retry.set()

    async def _write(self) -> bool:
        """Write a block of events; whether the disk took it."""
        async with self._disk_turn:
            events = self._block()
            self._writing = True
            try:
                job = self._disk.log.append
                await self._disk.run(job, self.base, events, self.acknowledged)
            except SpoolFull as error:
                self._refused(error)
                return False
            else:
                self._written(events)
                return True
            finally:
                self._writing = False
                self._trim()

    def _block(self) -> list[bytes]:
        events: list[bytes] = []
        size = 0
        for taken in self._taken:
            events.append(taken.event)
            size += len(taken.event)
            if size >= self._block_bytes:
                break
        return events

    def _written(self, events: Sequence[bytes]) -> None:
        offset = self.base
        self._drop(len(events))
        if self.trouble is not None:
            self.trouble = None
            _log.info("spool %s: takes events again", self._settings.directory)
        self._on_deliverable(offset, events)

    def acknowledge(self, through: int) -> None:
        """The server has the events before `through`."""
        self.acknowledged = through
        if not self._writing:
            self._trim()

    def _trim(self) -> None:
        self._drop(min(len(self._taken), self.acknowledged - self.base))

    def _drop(self, count: int) -> None:
        """The oldest are safe."""
        for _ in range(count):
            taken = self._taken.popleft()
            self._bytes -= len(taken.event)
            if not taken.settled.done():
                taken.settled.set_result(self.base)
            self.base += 1
        self._room.set()
        if not self._taken:
            self._empty.set()

    # While the disk refuses

    def events_from(self, offset: int) -> list[bytes]:
        """Some events that are in memory alone; `offset` is in base..next_offset."""
        start = offset - self.base
        return [taken.event for taken in islice(self._taken, start, start + MANY_EVENTS)]

    @property
    def _in_memory(self) -> bool:
        return self.trouble is not None and self._settings.when_full is WhenFull.MEMORY

    def _refused(self, error: SpoolFull) -> None:
        begins = self.trouble is None
        self.trouble = error
        if begins:
            self._counters.spool_full += 1
            _log.warning("%s; %s", error, _CONSEQUENCES[self._settings.when_full])
            self._tell(error)
        if self._ended and self._failure is not None:
            self._refuse_taken(self._failure)
        elif self._settings.when_full is WhenFull.RAISE:
            self._give_back(error)
        elif begins:
            for offset, taken in enumerate(self._taken, self.base):
                self._take_in_trouble(taken, offset)

    def _take_in_trouble(self, taken: _Taken, offset: int) -> None:
        if self._in_memory:
            self._counters.not_durable += 1
            if not taken.settled.done():
                taken.settled.set_result(offset)
        if self._settings.when_full is not WhenFull.RAISE:
            self._on_deliverable(offset, (taken.event,))

    def _give_back(self, error: SpoolFull) -> None:
        while self._taken:
            taken = self._taken.popleft()
            self._bytes -= len(taken.event)
            refusal = SpoolFull(error.message)
            refusal.__cause__ = error.__cause__
            _refuse(taken, refusal)
        self._room.set()
        self._empty.set()

    def _tell(self, error: SpoolFull) -> None:
        if self._settings.on_full is None:
            return
        try:
            self._settings.on_full(error)
        except Exception:  # noqa: BLE001 - whatever it raises must not end the stream
            _log.exception("on_full failed")


def _refuse(taken: _Taken, error: ZaazError) -> None:
    if not taken.settled.done():
        taken.settled.set_exception(error)
        taken.settled.exception()  # it counts as seen, should nobody wait any longer


def _is_refused(settled: "asyncio.Future[int]") -> bool:
    return settled.done() and not settled.cancelled() and settled.exception() is not None


_CONSEQUENCES: Final = {
    WhenFull.WAIT: "senders wait until their events are on disk or acknowledged",
    WhenFull.RAISE: "senders are refused",
    WhenFull.MEMORY: "events are in memory alone and would die with this process",
}
