"""A usage stream's events between its callers and its queue: on disk, and read back as room is."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from zaaz_client.errors import InternalError, ZaazError
from zaaz_client.spool.disk import Disk
from zaaz_client.spool.errors import SpoolFull
from zaaz_client.spool.settings import SpoolSettings
from zaaz_client.spool.writer import SpoolWriter
from zaaz_client.usage_queue import UsageQueue
from zaaz_client.usage_results import UsageCounters
from zaaz_client.usage_settings import UsageStreamSettings

_log = logging.getLogger("zaaz_client")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SpoolStatus:
    """A spool at a moment."""

    unacknowledged_events: int
    """On disk or in memory, and not acknowledged by the server."""
    memory_events: int
    """Those of them that are not on disk (yet)."""
    bytes_on_disk: int
    trouble: SpoolFull | None
    """Why the disk takes no events, while it does not."""


class Spool:
    """Feeds `queue`, which holds no more than its bounds allow, from a directory.

        acknowledged          loaded              base             next_offset
            |   in the queue    |   on disk alone   |  not on disk yet  |
            +-------------------+-------------------+-------------------+

    Everything left of `base` is on disk. Nothing is sent to the server before
    it is, so what the server has of this writer is never more than the next
    process finds; but see WhenFull.
    """

    def __init__(
        self,
        writer_id: str,
        queue: UsageQueue,
        settings: SpoolSettings,
        bounds: UsageStreamSettings,
        counters: UsageCounters,
    ) -> None:
        self._writer_id = writer_id
        self._queue = queue
        self._settings = settings
        self._disk = Disk()
        self._writer = SpoolWriter(
            self._disk,
            settings,
            counters,
            max_events=half(bounds.max_buffered_events),
            max_bytes=half(bounds.max_buffered_bytes),
            on_deliverable=self._offer,
        )
        self._stands = 0
        self._client_id = ""
        self._heard = asyncio.Event()
        self._met = asyncio.Event()
        self._failure: ZaazError | None = None
        self._read: deque[bytes] = deque()
        """Events from `loaded` on that were read and found no room."""
        self._loaded = 0
        self._moved = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    # Life

    async def open(self) -> None:
        """Lock the directory and look at it. SpoolError."""
        path = Path(self._settings.directory)
        await self._disk.open(path, self._writer_id, self._settings.max_bytes)
        self._queue.on_advance = self._acknowledged
        self._writing = asyncio.create_task(self._write(), name=f"spool-{self._writer_id}")

    async def _write(self) -> None:
        try:
            await self._writer.run()
        except Exception as error:  # noqa: BLE001 - `feed` raises it
            failure = InternalError(f"a defect in the SDK ended the spool: {error!r}")
            failure.__cause__ = error
            self.fail(failure)
            self._heard.set()
            self._moved.set()

    def meet(self, next_offset: int, client_id: str) -> None:
        """The server was heard of for the first time: it goes on there, and whose key it is."""
        self._stands = next_offset
        self._client_id = client_id
        self._heard.set()

    async def met(self) -> None:
        """Wait until that is done. Raises what ended the stream before."""
        await self._met.wait()
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    async def begin_alone(self) -> bool:
        """Take events before the server is heard of; False if the spool is too new for it.

        Their offsets may be others once it is.
        """
        if self._disk.log.end is None or self._heard.is_set():
            return self._met.is_set()
        await self._writer.begin_alone()
        return True

    def fail(self, error: ZaazError) -> None:
        """Take nothing more."""
        self._failure = error
        self._met.set()
        self._writer.fail(error)

    async def finish(self, limit_seconds: float) -> None:
        """Deliver for so long, and longer what is in memory alone. The rest stays on disk."""
        try:
            async with asyncio.timeout(limit_seconds):
                await self.flush()
        except TimeoutError:
            await self._writer.emptied()
            left = self.status.unacknowledged_events
            _log.warning("spool %s: keeps %d events", self._settings.directory, left)

    async def close(self) -> None:
        """Close the directory. What the disk was about to take is on it then."""
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        self._writer.finish()
        try:
            await asyncio.wait({writing})
        finally:
            await self._disk.close(self._writer.acknowledged)

    # Senders

    @property
    def next_offset(self) -> int:
        """The offset that the next event gets."""
        return self._writer.next_offset

    @property
    def status(self) -> SpoolStatus:
        """How it is."""
        return SpoolStatus(
            unacknowledged_events=self._writer.next_offset - self._writer.acknowledged,
            memory_events=self._writer.held_events,
            bytes_on_disk=self._disk.log.used_bytes,
            trouble=self._writer.trouble,
        )

    async def put(self, event: bytes) -> int:
        """Take an event; its offset, once it is safe."""
        return await self._writer.put(event)

    async def put_many(self, events: Sequence[bytes]) -> None:
        """Take up to MANY_EVENTS in order."""
        await self._writer.put_many(events)

    async def flush(self) -> None:
        """Wait until everything taken so far is acknowledged; raises what ended the stream."""
        if self._met.is_set() and self._writer.acknowledged >= self._writer.next_offset:
            return
        await self.met()
        through = await self._writer.settled()
        await self._queue.wait_acknowledged(through)

    # The queue

    async def feed(self) -> None:
        """Fill the queue, and free what is acknowledged, for good.

        SpoolDamaged; OffsetOutOfRange when the server has lost events.
        """
        await self._heard.wait()
        await self._meet(self._stands)
        while True:
            await self._moved.wait()
            self._moved.clear()
            self._check()
            await self._release()
            while self._loaded < self._writer.deliverable:
                if not self._read:
                    self._read.extend(await self._next_events())
                if not self._load():
                    self._queue.hurry()
                    break

    async def _meet(self, next_offset: int) -> None:
        renumbered = await self._patiently(lambda: self._writer.meet(next_offset, self._client_id))
        if renumbered:
            _log.warning(
                "spool %s: the server has more of writer %s than the spool; %d events are sent"
                " again from offset %d on, and none is billed twice",
                self._settings.directory,
                self._writer_id,
                renumbered,
                next_offset,
            )
        self._loaded = next_offset
        self._met.set()
        self._moved.set()

    async def _next_events(self) -> list[bytes]:
        if self._loaded >= self._writer.base:
            return self._writer.events_from(self._loaded)
        loaded = self._loaded
        return await self._patiently(lambda: self._disk.run(self._disk.log.read, loaded))

    def _load(self) -> bool:
        """Move what was read into the queue; whether there was room for all."""
        while self._read:
            if not self._queue.offer(self._read[0]):
                return False
            self._read.popleft()
            self._loaded += 1
        return True

    def _offer(self, offset: int, events: Sequence[bytes]) -> None:
        """These may be sent: at once, if they are next and there is room, without reading them."""
        self._moved.set()
        if not self._met.is_set() or self._failure is not None or self._read:
            return
        for event in events[self._loaded - offset :] if offset <= self._loaded else ():
            if not self._queue.offer(event):
                return
            self._loaded += 1

    def _acknowledged(self, through: int) -> None:
        self._writer.acknowledge(through)
        self._moved.set()

    async def _release(self) -> None:
        at = self._disk.log.releasable_at
        if at is None or at > self._writer.acknowledged:
            return
        try:
            await self._disk.run(self._disk.log.release, self._writer.acknowledged)
        except OSError as error:  # tried again with the next acknowledgement
            level = logging.DEBUG if self._writer.trouble else logging.WARNING
            _log.log(level, "spool %s: %s; not tidied", self._settings.directory, error)
        else:
            self._writer.retry()

    async def _patiently(self, job: Callable[[], Awaitable[_T]]) -> _T:
        """What the job comes to, once the disk allows it."""
        told = False
        while True:
            try:
                return await job()
            except OSError as error:
                level = logging.DEBUG if told else logging.WARNING
                _log.log(level, "spool %s: %s; trying again", self._settings.directory, error)
            told = True
            await asyncio.sleep(self._settings.retry_seconds)


def half(bound: int) -> int:
    """The queue's part of a bound, and the writer's."""
    return max(1, bound // 2)
