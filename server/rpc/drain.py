"""Going away: streams are told first, so that they end in order instead of being cut."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from server.kernel.errors import DomainError, Reason


class OpenStream:
    """One stream that is running: how others end it."""

    def __init__(self, task: "asyncio.Task[object]", *, public: bool) -> None:
        self.public = public
        self.ended = False
        self.error: DomainError | None = None
        self._task = task
        self._cancelling = task.cancelling()
        self._closed = False

    def end(self, error: DomainError | None) -> None:
        """Cancel the handler; the call ends with `error`, or OK for None. The first end counts."""
        if self._closed or self.ended:
            return
        self.ended = True
        self.error = error
        self._task.cancel()

    def was_ended(self) -> bool:
        """In `except CancelledError`: whether it was `end` and nobody else who cancelled."""
        return self.ended and self._task.uncancel() <= self._cancelling

    def close(self) -> None:
        """The handler has finished: nothing to end any more."""
        self._closed = True


class Drain:
    """Tells everything that runs long that the server is going away.

    A stream handler that can end well on its own waits for `started` beside
    its other work, says what its clients need to know, and returns.
    """

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self._streams: set[OpenStream] = set()
        self._changed = asyncio.Event()

    @property
    def open_streams(self) -> int:
        """How many streams are running now."""
        return len(self._streams)

    def start(self) -> None:
        """Tell the streams. No new ones are taken from now on."""
        self.started.set()

    def refuse(self) -> None:
        """Raise DRAINING when the server is going away."""
        if self.started.is_set():
            raise DomainError(Reason.DRAINING, "the server is going away: connect to another")

    @contextmanager
    def track(self, stream: OpenStream) -> Iterator[None]:
        """Know `stream` while it runs."""
        self._streams.add(stream)
        try:
            yield
        finally:
            stream.close()
            self._streams.discard(stream)
            self._changed.set()

    async def wait_for_streams(self, timeout_seconds: float) -> bool:
        """Wait until the streams of clients have ended; False when time ran out first."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while any(not stream.public for stream in self._streams):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def end_streams(self) -> None:
        """End what did not end on its own: health and reflection with OK, others DRAINING."""
        gone = DomainError(Reason.DRAINING, "the server went away: connect to another")
        for stream in tuple(self._streams):
            stream.end(None if stream.public else gone)
