"""One IngestUsage call: opens the writer, sends frames, takes answers, until it ends."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from zaaz.credits.v1.usage_service_pb2 import (
    IngestUsageResponse,
    UsageFrameAck,
    UsageFrameRejected,
    UsageStreamOpened,
    UsageStreamThrottle,
)

from zaaz_client.backoff import Backoff, seconds
from zaaz_client.channel import TypedChannel
from zaaz_client.errors import (
    Draining,
    InternalError,
    OffsetOutOfRange,
    Overloaded,
    ProtocolError,
    Unavailable,
    ZaazError,
)
from zaaz_client.status import from_status
from zaaz_client.usage_queue import UsageQueue
from zaaz_client.usage_results import UsageResults
from zaaz_client.usage_settings import UsageStreamSettings
from zaaz_client.wire import encode_frame, encode_open

METHOD: Final = "/zaaz.credits.v1.UsageService/IngestUsage"

_log = logging.getLogger(__name__)


class Reopen(Exception):  # noqa: N818 - a turn of events
    """The call is over and another one may go on."""

    def __init__(self, cause: ZaazError) -> None:
        super().__init__(cause)
        self.cause = cause


class UsageSession:
    """Runs once. Nothing of it survives but what queue and results hold."""

    def __init__(
        self,
        channel: TypedChannel,
        writer_id: str,
        queue: UsageQueue,
        results: UsageResults,
        backoff: Backoff,
        settings: UsageStreamSettings,
        on_opened: Callable[[int, str], None],
    ) -> None:
        self._start = channel.stream_stream(
            METHOD, response_deserializer=IngestUsageResponse.FromString
        )
        self._writer_id = writer_id
        self._queue = queue
        self._results = results
        self._backoff = backoff
        self._settings = settings
        self._on_opened = on_opened
        self._loop = asyncio.get_running_loop()
        self._window_frames = 1
        self._paused_until = 0.0
        self._stale_answers = 0
        """Answers still to come for frames that a rejection has taken back."""
        self._watch: asyncio.Timeout

    async def run(self) -> None:
        """Return when the queue is finished. Raises Reopen, or ZaazError for good."""
        call = self._start()
        writer: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(self._settings.answer_timeout_seconds) as self._watch:
                with contextlib.suppress(asyncio.InvalidStateError):  # over; reading says why
                    await call.write(encode_open(self._writer_id))
                async for response in call:
                    if writer is None:
                        writer = self._opened(call, response)
                    else:
                        self._answered(response)
            self._ended(Unavailable("the server ended the stream"))
        except TimeoutError:
            limit = self._settings.answer_timeout_seconds
            self._ended(Unavailable(f"the server gave no answer for {limit:g} s"))
        except ZaazError as error:
            self._ended(error)
        finally:
            call.cancel()  # grpc.aio never collects a call that was left alone
            if writer is not None:
                await _stop(writer)

    def _ended(self, error: ZaazError) -> None:
        if self._queue.finished:
            return
        if error.retryable or _asks_to_reopen(error):
            raise Reopen(error) from error
        raise error

    # Answers

    def _opened(self, call: Any, response: IngestUsageResponse) -> asyncio.Task[None] | None:
        match response.WhichOneof("response"):
            case "opened":
                self._take_over(response.opened)
                return self._start_sending(call)
            case "throttle":
                self._throttle(response.throttle)
            case "drain":
                raise Draining("the server is going away")
            case other:
                raise ProtocolError(f"the server answered `open` with `{other}`")
        return None

    def _take_over(self, opened: UsageStreamOpened) -> None:
        self._window_frames = max(1, opened.max_inflight_frames)
        self._queue.frame_events = max(1, opened.max_frame_events)
        self._on_opened(opened.next_offset, opened.client_id)
        self._watch_answers()

    def _answered(self, response: IngestUsageResponse) -> None:
        match response.WhichOneof("response"):
            case "ack":
                self._acknowledge(response.ack)
            case "rejected":
                self._take_back(response.rejected)
            case "throttle":
                self._throttle(response.throttle)
            case "drain":
                raise Draining("the server is going away")
            case "opened":
                raise ProtocolError("the server opened the stream twice")
            case _:
                _log.debug("passed over a message that this SDK does not know")

    def _acknowledge(self, ack: UsageFrameAck) -> None:
        frame = self._queue.unanswered[0] if self._queue.unanswered else None
        if self._stale_answers or frame is None or ack.through_offset < frame.end:
            raise ProtocolError(f"the server acknowledged through {ack.through_offset:,} unasked")
        self._queue.acknowledge()
        self._results.acknowledged(frame, ack)
        self._backoff.reset()
        self._watch_answers()

    def _take_back(self, rejected: UsageFrameRejected) -> None:
        """A frame moved nothing, so neither will those behind it: all are sent again."""
        error = from_status(rejected.error)
        if self._stale_answers:
            self._stale_answers -= 1
        elif not self._queue.unanswered:
            raise ProtocolError(f"the server rejected offset {rejected.offset:,} unasked")
        else:
            self._check_rejection(error)
            self._stale_answers = len(self._queue.unanswered) - 1
            self._queue.rewind()
            self._pause(self._backoff.next_delay(error.retry_delay), error)
            _log.info("writer %s: frame rejected, sending it again: %s", self._writer_id, error)
        self._watch_answers()
        self._queue.work.set()

    def _check_rejection(self, error: ZaazError) -> None:
        if _asks_to_reopen(error) or isinstance(error, InternalError):
            raise Reopen(error)  # which is not tried for ever
        if not error.retryable:
            raise error

    def _throttle(self, throttle: UsageStreamThrottle) -> None:
        delay = throttle.retry_delay
        asked = timedelta(seconds=delay.seconds, microseconds=delay.nanos // 1000)
        self._pause(seconds(asked), Overloaded("the server keeps throttling the stream"))

    def _pause(self, delay: float, cause: ZaazError) -> None:
        if self._queue.stalled(self._settings.stall_timeout_seconds):
            raise Reopen(cause)
        self._paused_until = max(self._paused_until, time.monotonic() + delay)

    def _watch_answers(self) -> None:
        """Something was answered: the oldest frame that is not has its time from now on."""
        waiting = self._queue.unanswered or self._stale_answers
        deadline = self._loop.time() + self._settings.answer_timeout_seconds
        self._watch.reschedule(deadline if waiting else None)

    # Frames

    def _start_sending(self, call: Any) -> asyncio.Task[None]:
        def over(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                call.cancel()  # wakes the reader, which passes the defect on

        task = asyncio.create_task(self._send_frames(call))
        task.add_done_callback(over)
        return task

    async def _send_frames(self, call: Any) -> None:
        try:
            while not self._queue.finished:
                if await self._due():
                    frame = self._queue.cut()
                    if self._watch.when() is None:
                        self._watch_answers()
                    await call.write(encode_frame(frame.offset, frame.chunks))
            await call.done_writing()
        except (ZaazError, asyncio.InvalidStateError):
            return  # the call is over, and its reader knows why

    async def _due(self) -> bool:
        """Wait until there may be a frame to send; whether there is."""
        self._queue.work.clear()
        wait = self._seconds_to_wait()
        if wait == 0:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._queue.work.wait()
        return False

    def _seconds_to_wait(self) -> float | None:
        """0 when a frame is due, None when only an answer or an event can make it so."""
        queue = self._queue
        busy = self._stale_answers or len(queue.unanswered) >= self._window_frames
        if busy or not queue.pending_events:
            return None
        now = time.monotonic()
        if now < self._paused_until:
            return self._paused_until - now
        if queue.pending_events >= queue.frame_events or queue.cursor < queue.hurry_through:
            return 0
        return max(0, queue.pending_since + self._settings.linger_seconds - now)


def _asks_to_reopen(error: ZaazError) -> bool:
    """Whether opening the writer again tells where it stands. The queue's own error does not."""
    return isinstance(error, OffsetOutOfRange) and bool(error.reason)


async def _stop(task: asyncio.Task[None]) -> None:
    """End a task and pass on what it raised, unless it was only cancelled."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
