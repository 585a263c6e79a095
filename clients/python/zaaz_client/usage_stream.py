"""The usage stream: send events, and each is billed, or kept, exactly once."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from itertools import islice
from types import TracebackType
from typing import Final, Self

from zaaz.credits.v1.feature_usage_log_pb2 import FeatureUsageEvent
from zaaz.credits.v1.usage_service_pb2 import UsageEvent

from zaaz_client.backoff import Backoff
from zaaz_client.channel import TypedChannel
from zaaz_client.errors import (
    InternalError,
    OffsetOutOfRange,
    Stalled,
    StreamClosed,
    Unavailable,
    ZaazError,
)
from zaaz_client.spool.settings import SpoolSettings
from zaaz_client.spool.spool import Spool, SpoolStatus, half
from zaaz_client.spool.writer import MANY_EVENTS
from zaaz_client.usage_queue import UsageQueue
from zaaz_client.usage_results import RejectedEvent, RejectedHandler, UsageCounters, UsageResults
from zaaz_client.usage_session import Reopen, UsageSession
from zaaz_client.usage_settings import DEFAULT_SETTINGS, UsageStreamSettings
from zaaz_client.winding_up import end, outlast
from zaaz_client.wire import StreamEvent, decode_event, encode_event

MAX_DEFECTIVE_TRIES: Final = 20
"""Tries without progress against a server that answers, but with nonsense or INTERNAL."""
STABLE_SECONDS: Final = 30.0
"""A call that lasted so long was no failed try, even if it had nothing to send."""
GOODBYE_SECONDS: Final = 2.0
"""How long close() waits for the server to end a stream that owes nothing."""
LET_GO_SECONDS: Final = 5.0
"""How long a close() that is cancelled goes on, to have on disk what the spool has taken."""

_log = logging.getLogger(__name__)


class UsageStream:
    """Delivers usage events in order, through restarts and broken connections.

        async with client.usage_stream("billing-pod-7") as stream:
            await stream.send(event)
            await stream.flush()

    Events wait in a bounded buffer until the server has acknowledged that they
    are durable; what was not acknowledged is sent again when the stream has
    been opened again, from where the server says that the writer stands.
    Refused events come to `on_rejected` and `rejected_events`; they never end
    the stream. What ends it for good (WriterFenced, AccessRefused,
    OffsetOutOfRange, Stalled, ...) is raised by send, flush and close from then
    on, and `unacknowledged_events()` has what was not delivered.

    With a `spool` events are on disk before send returns, and wait there: the
    next process that opens the stream with the same directory and writer_id
    sends what was not acknowledged.

    Belongs to one event loop; any number of its tasks may send.
    """

    def __init__(
        self,
        channel: TypedChannel,
        writer_id: str,
        *,
        on_rejected: RejectedHandler | None = None,
        settings: UsageStreamSettings = DEFAULT_SETTINGS,
        spool: SpoolSettings | None = None,
    ) -> None:
        self.writer_id = writer_id
        self._channel = channel
        self._settings = settings
        self._results = UsageResults(on_rejected)
        bounds = (settings.max_buffered_events, settings.max_buffered_bytes)
        self._spool: Spool | None = None
        if spool is None:
            self._queue = UsageQueue(*bounds)
        else:
            self._queue = UsageQueue(*map(half, bounds))
            counters = self._results.counters
            self._spool = Spool(writer_id, self._queue, spool, settings, counters)
        self._backoff = Backoff(settings.min_backoff_seconds, settings.max_backoff_seconds)
        self._opened = asyncio.Event()
        self._client_id = ""
        self._connected = False
        self._reopening = False
        self._last_cause: ZaazError | None = None
        self._task: asyncio.Task[None] | None = None

    # What the caller sees

    @property
    def next_offset(self) -> int:
        """How many events this writer has sent in all; the offset of the next one.

        Right after opening it is what the server has from this writer before,
        and what the spool has: a caller that replays a source skips so many.
        """
        return self._queue.next_offset if self._spool is None else self._spool.next_offset

    @property
    def acknowledged_offset(self) -> int:
        """Every event before it is durable."""
        return self._queue.acknowledged

    @property
    def connected(self) -> bool:
        """Whether the writer is open on a server right now."""
        return self._connected

    @property
    def counters(self) -> UsageCounters:
        """What became of the events so far."""
        return self._results.counters

    @property
    def rejected_events(self) -> deque[RejectedEvent]:
        """The latest refused events, oldest first (MAX_REJECTED_EVENTS of them)."""
        return self._results.rejected

    @property
    def spool_status(self) -> SpoolStatus | None:
        """How the spool is; None without one, and before it is open."""
        return None if self._spool is None or self._task is None else self._spool.status

    def unacknowledged_events(self) -> list[StreamEvent]:
        """Events that were sent and not acknowledged, in order.

        With a spool, those of them that are in the buffer: `spooled_events`
        reads the directory, once the stream is closed.
        """
        return [decode_event(chunk) for chunk in self._queue.chunks()]

    # Sending

    async def send(self, event: UsageEvent) -> int:
        """Hand an event over and return its offset; waits while the buffer is full.

        The event is copied. When the wait is cancelled it was not taken.
        Raises MessageTooLarge for an event past 64 KiB, and what ended the stream.

        With a spool it returns once the event is on disk; SpoolFull is raised
        if that is what WhenFull says. When this wait is cancelled the event may
        have been taken: sending it again bills nothing twice.
        """
        return await self._put(event)

    def send_nowait(self, event: UsageEvent) -> int:
        """As send, but raises BufferFull rather than wait.

        RuntimeError with a spool: it takes a wait to have an event on disk.
        """
        return self._put_nowait(event)

    async def send_feature_usage(self, event: FeatureUsageEvent) -> int:
        """As send, for an interaction to be kept in the feature usage log.

        It has a place of its own in the offsets. MessageTooLarge is past 256 KiB.
        """
        return await self._put(event)

    def send_feature_usage_nowait(self, event: FeatureUsageEvent) -> int:
        """As send_feature_usage, but raises BufferFull rather than wait."""
        return self._put_nowait(event)

    async def send_many(self, events: Iterable[StreamEvent]) -> int:
        """Hand events of either kind over in order; returns the offset after the last.

        Events before the one that raises have been taken: `next_offset` tells.
        """
        if self._spool is None:
            for event in events:
                await self._put(event)
        else:
            chunks = map(encode_event, events)
            while group := list(islice(chunks, MANY_EVENTS)):
                await self._spool.put_many(group)
        return self.next_offset

    async def _put(self, event: StreamEvent) -> int:
        if self._spool is not None:
            return await self._spool.put(encode_event(event))
        offset = await self._queue.put(encode_event(event))
        self._results.counters.sent += 1
        return offset

    def _put_nowait(self, event: StreamEvent) -> int:
        if self._spool is not None:
            raise RuntimeError("a stream with a spool cannot take an event without a wait")
        offset = self._queue.put_nowait(encode_event(event))
        self._results.counters.sent += 1
        return offset

    async def flush(self) -> None:
        """Wait until every event sent so far is acknowledged; raises what ended the stream.

        Bound it with asyncio.timeout if need be; cancelling it loses nothing.
        """
        if self._spool is None:
            await self._queue.wait_acknowledged()
        else:
            await self._spool.flush()

    # Life

    async def __aenter__(self) -> Self:
        """Open the writer. Raises Unavailable when that takes longer than it may.

        With a spool that has been used before the stream is then open all the
        same: events go to disk until a server is there. SpoolError when the
        directory cannot be used.
        """
        if self._task is not None:
            raise StreamClosed("a usage stream can be opened once: ask the client for a new one")
        if self._spool is not None:
            await self._spool.open()
        self._task = asyncio.create_task(self._run(), name=f"usage-stream-{self.writer_id}")
        self._task.add_done_callback(self._over)
        try:
            await self._open()
        except BaseException:
            await self._cancel()
            raise
        return self

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(self._settings.open_timeout_seconds):
                await self._opened.wait()
                if self._spool is not None:
                    await self._spool.met()
        except TimeoutError:
            if self._spool is None or not await self._spool.begin_alone():
                raise self._unopened() from self._last_cause
            _log.warning("writer %s: %s; events go to the spool", self.writer_id, self._unopened())
        else:
            self._queue.check()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Close. After an exception, deliver what can be in `close_timeout_seconds`."""
        if exc_type is None:
            await self.close()
            return
        limit = self._settings.close_timeout_seconds
        try:
            # A spool has its own limit, and what is left then is not lost.
            async with asyncio.timeout(limit if self._spool is None else 2 * limit):
                await self.close()
        except (ZaazError, TimeoutError) as error:
            why = str(error) or "out of time"
            _log.error("writer %s: %s: %s", self.writer_id, self._undelivered(), why)

    def _undelivered(self) -> str:
        status = self.spool_status
        if status is None:
            return f"{self._queue.unacknowledged} events not delivered"
        kept = status.unacknowledged_events - status.memory_events
        return f"{status.memory_events} events not delivered, and {kept} kept in the spool"

    async def close(self) -> None:
        """Flush, then end the stream. Raises what ended it while events were waiting.

        With a spool, events are delivered for `close_timeout_seconds`: the rest
        stays on disk, and is told in the log.
        """
        if self._task is None:
            return
        try:
            if self._spool is None:
                await self.flush()
            else:
                await self._spool.finish(self._settings.close_timeout_seconds)
            self._queue.closing = True
            self._queue.work.set()
            if self._connected and self._queue.finished:
                await asyncio.wait({self._task}, timeout=GOODBYE_SECONDS)
        finally:
            await self._cancel()

    async def _cancel(self) -> None:
        # The directory is let go of, however often the caller is cancelled meanwhile.
        await outlast(self._end(), LET_GO_SECONDS)

    async def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._spool is not None:
            await self._spool.close()

    def _unopened(self) -> ZaazError:
        cause = self._last_cause or "no answer"
        waited = self._settings.open_timeout_seconds
        return Unavailable(f"the usage stream could not be opened for {waited:g} s: {cause}")

    # The task

    async def _run(self) -> None:
        if self._spool is None:
            await self._deliver()
            return
        tasks = {asyncio.create_task(self._deliver()), asyncio.create_task(self._spool.feed())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                await end(task)
        for task in done:
            task.result()

    async def _deliver(self) -> None:
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._session().run()
            except Reopen as reopen:
                self._connected = False
                if asyncio.get_running_loop().time() - began > STABLE_SECONDS:
                    self._backoff.reset()
                await asyncio.sleep(self._delay(reopen.cause))
            else:
                return

    def _session(self) -> UsageSession:
        return UsageSession(
            self._channel,
            self.writer_id,
            self._queue,
            self._results,
            self._backoff,
            self._settings,
            self._take_over,
        )

    def _take_over(self, next_offset: int, client_id: str) -> None:
        if self._opened.is_set():
            self._check_client(client_id)
            self._results.found(self._queue.resume(next_offset))
            self._results.counters.reopened += 1
        else:
            self._queue.start(next_offset)
            if self._spool is not None:
                self._spool.meet(next_offset, client_id)
            self._client_id = client_id
            self._opened.set()
        _log.info("writer %s: open at offset %d", self.writer_id, next_offset)
        self._reopening = False
        self._connected = True

    def _check_client(self, client_id: str) -> None:
        if client_id != self._client_id and client_id and self._client_id:
            raise OffsetOutOfRange(
                f"writer {self.writer_id} was opened by a key of client {self._client_id!r}, and"
                f" now by one of client {client_id!r}: another client's writer is another one"
            )

    def _delay(self, cause: ZaazError) -> float:
        """Seconds until the next try; raises when there should be none."""
        self._last_cause = cause
        if self._queue.stalled(self._settings.stall_timeout_seconds):
            limit = self._settings.stall_timeout_seconds
            raise Stalled(f"nothing was acknowledged for {limit:g} s: {cause}") from cause
        defective = isinstance(cause, InternalError | OffsetOutOfRange)
        if defective and self._backoff.tries >= MAX_DEFECTIVE_TRIES:
            raise cause
        level = logging.DEBUG if self._reopening else logging.WARNING  # once a time away
        _log.log(level, "writer %s: %s; opening the stream again", self.writer_id, cause)
        self._reopening = True
        return self._backoff.next_delay(cause.retry_delay)

    def _over(self, task: asyncio.Task[None]) -> None:
        """However the task ended, nobody waits for it any longer."""
        if task.cancelled():
            error: BaseException | None = None
        else:
            error = task.exception()
        if isinstance(error, ZaazError):
            self._fail(error)
        elif error is None:
            self._fail(StreamClosed("the usage stream is closed"))
        else:
            failure = InternalError(f"a defect in the SDK ended the stream: {error!r}")
            failure.__cause__ = error
            self._fail(failure)
        self._opened.set()

    def _fail(self, error: ZaazError) -> None:
        self._queue.fail(error)
        if self._spool is not None:
            self._spool.fail(error)
