"""Has usage events sent from whatever thread and event loop they come up in."""

import asyncio
import logging
import threading
from typing import Final

from zaaz.credits.v1.usage_service_pb2 import UsageEvent

from zaaz_client.blocking import BlockingUsageStream
from zaaz_client.usage_stream import UsageStream

MAX_HANDED_OVER_EVENTS: Final = 10_000
"""So many may be on their way into a stream of another thread's loop; more are not billed."""

_log = logging.getLogger("zaaz_client")


class AnyThreadSender:
    """Sends to a stream of this thread's event loop, or to a blocking one.

    Events for a loop from outside of it are handed over, and nobody waits for
    it: it may be the one that the caller keeps from running. What becomes of
    those is logged where it is not that they are sent.
    RuntimeError where a UsageStream is given and no event loop runs.
    """

    def __init__(self, stream: UsageStream | BlockingUsageStream) -> None:
        self._stream = stream
        self._loop = None if isinstance(stream, BlockingUsageStream) else asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._tasks: set[asyncio.Task[int]] = set()
        self.handed_over = 0
        """Events that are on their way into the loop's stream."""

    async def send(self, event: UsageEvent) -> None:
        """From any event loop. Raises ZaazError, and RuntimeError where nobody takes it."""
        if isinstance(self._stream, BlockingUsageStream):
            await asyncio.to_thread(self._stream.send, event)
        elif asyncio.get_running_loop() is self._loop:
            await self._stream.send(event)
        else:
            self._hand_over(self._stream, event)

    def send_blocking(self, event: UsageEvent) -> None:
        """From any thread, with an event loop or without. Raises as `send` does."""
        if isinstance(self._stream, BlockingUsageStream):
            self._stream.send(event)
        else:
            self._hand_over(self._stream, event)

    def _hand_over(self, stream: UsageStream, event: UsageEvent) -> None:
        loop = self._loop
        if loop is None or not loop.is_running():
            raise RuntimeError("the event loop of the usage stream has ended")
        with self._lock:
            if self.handed_over >= MAX_HANDED_OVER_EVENTS:
                raise RuntimeError(f"{MAX_HANDED_OVER_EVENTS} events wait for the usage stream")
            self.handed_over += 1
        try:
            loop.call_soon_threadsafe(self._begin, loop, stream, event)
        except RuntimeError:
            self._arrived()
            raise

    def _begin(
        self, loop: asyncio.AbstractEventLoop, stream: UsageStream, event: UsageEvent
    ) -> None:
        task = loop.create_task(stream.send(event))
        self._tasks.add(task)  # the loop itself does not keep it

        def end(task: "asyncio.Task[int]") -> None:
            self._tasks.discard(task)
            self._arrived()
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is not None:
                _log.error("not billed: %s: %r", event.usage_key, error)

        task.add_done_callback(end)

    def _arrived(self) -> None:
        with self._lock:
            self.handed_over -= 1
