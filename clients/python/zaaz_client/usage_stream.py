"""The usage stream: send events, and each is billed, or kept, exactly once."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
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
from zaaz_client.usage_queue import UsageQueue
from zaaz_client.usage_results import RejectedEvent, RejectedHandler, UsageCounters, UsageResults
from zaaz_client.usage_session import Reopen, UsageSession
from zaaz_client.usage_settings import DEFAULT_SETTINGS, UsageStreamSettings
from zaaz_client.wire import StreamEvent, decode_event, encode_event

MAX_DEFECTIVE_TRIES: Final = 20
"""Tries without progress against a server that answers, but with nonsense or INTERNAL."""
STABLE_SECONDS: Final = 30.0
"""A call that lasted so long was no failed try, even if it had nothing to send."""
GOODBYE_SECONDS: Final = 2.0
"""How long close() waits for the server to end a stream that owes nothing."""

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

    Belongs to one event loop; any number of its tasks may send.
    """

    def __init__(
        self,
        channel: TypedChannel,
        writer_id: str,
        *,
        on_rejected: RejectedHandler | None = None,
        settings: UsageStreamSettings = DEFAULT_SETTINGS,
    ) -> None:
        self.writer_id = writer_id
        self._channel = channel
        self._settings = settings
        self._queue = UsageQueue(settings.max_buffered_events, settings.max_buffered_bytes)
        self._results = UsageResults(on_rejected)
        self._backoff = Backoff(settings.min_backoff_seconds, settings.max_backoff_seconds)
        self._opened = asyncio.Event()
        self._connected = False
        self._reopening = False
        self._last_cause: ZaazError | None = None
        self._task: asyncio.Task[None] | None = None

    # What the caller sees

    @property
    def next_offset(self) -> int:
        """How many events this writer has sent in all; the offset of the next one.

        Right after opening it is what the server has from this writer before:
        a caller that replays a source skips so many.
        """
        return self._queue.next_offset

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

    def unacknowledged_events(self) -> list[StreamEvent]:
        """Events that were sent and not acknowledged, in order."""
        return [decode_event(chunk) for chunk in self._queue.chunks()]

    # Sending

    async def send(self, event: UsageEvent) -> int:
        """Hand an event over and return its offset; waits while the buffer is full.

        The event is copied. When the wait is cancelled it was not taken.
        Raises MessageTooLarge for an event past 64 KiB, and what ended the stream.
        """
        return await self._put(event)

    def send_nowait(self, event: UsageEvent) -> int:
        """As send, but raises BufferFull rather than wait."""
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
        for event in events:
            await self._put(event)
        return self._queue.next_offset

    async def _put(self, event: StreamEvent) -> int:
        offset = await self._queue.put(encode_event(event))
        self._results.counters.sent += 1
        return offset

    def _put_nowait(self, event: StreamEvent) -> int:
        offset = self._queue.put_nowait(encode_event(event))
        self._results.counters.sent += 1
        return offset

    async def flush(self) -> None:
        """Wait until every event sent so far is acknowledged; raises what ended the stream.

        Bound it with asyncio.timeout if need be; cancelling it loses nothing.
        """
        await self._queue.wait_acknowledged()

    # Life

    async def __aenter__(self) -> Self:
        """Open the writer. Raises Unavailable when that takes longer than it may."""
        if self._task is not None:
            raise StreamClosed("a usage stream can be opened once: ask the client for a new one")
        self._task = asyncio.create_task(self._run(), name=f"usage-stream-{self.writer_id}")
        self._task.add_done_callback(self._over)
        try:
            async with asyncio.timeout(self._settings.open_timeout_seconds):
                await self._opened.wait()
        except TimeoutError:
            await self._cancel()
            raise self._unopened() from self._last_cause
        except BaseException:
            await self._cancel()
            raise
        self._queue.check()
        return self

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
        try:
            async with asyncio.timeout(self._settings.close_timeout_seconds):
                await self.close()
        except (ZaazError, TimeoutError) as error:
            lost = self._queue.unacknowledged
            _log.error("writer %s: %d events not delivered: %s", self.writer_id, lost, error)

    async def close(self) -> None:
        """Flush, then end the stream. Raises what ended it while events were waiting."""
        try:
            await self.flush()
            self._queue.closing = True
            self._queue.work.set()
            if self._task is not None and self._connected:
                await asyncio.wait({self._task}, timeout=GOODBYE_SECONDS)
        finally:
            await self._cancel()

    async def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def _unopened(self) -> ZaazError:
        cause = self._last_cause or "no answer"
        waited = self._settings.open_timeout_seconds
        return Unavailable(f"the usage stream could not be opened for {waited:g} s: {cause}")

    # The task

    async def _run(self) -> None:
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

    def _take_over(self, next_offset: int) -> None:
        if self._opened.is_set():
            self._results.found(self._queue.resume(next_offset))
            self._results.counters.reopened += 1
        else:
            self._queue.start(next_offset)
            self._opened.set()
        _log.info("writer %s: open at offset %d", self.writer_id, next_offset)
        self._reopening = False
        self._connected = True

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
            self._queue.fail(error)
        elif error is None:
            self._queue.fail(StreamClosed("the usage stream is closed"))
        else:
            failure = InternalError(f"a defect in the SDK ended the stream: {error!r}")
            failure.__cause__ = error
            self._queue.fail(failure)
        self._opened.set()
