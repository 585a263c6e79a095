"""An event loop in a thread of its own, for callers that have none."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from typing import Any, Final, TypeVar

from zaaz_client.errors import StreamClosed

END_SECONDS: Final = 10.0
"""How long what was cancelled may take to end: a credit process settles first."""

_T = TypeVar("_T")


class LoopThread:
    """Runs coroutines of any thread in one loop, and gives their results back.

    A KeyboardInterrupt, or whatever else a signal raises in a thread that
    waits, cancels the coroutine that it waits for, and is raised when that has
    ended.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._awaited: set[Future[Any]] = set()
        # Nobody who forgets to stop it is kept from ending.
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """The result of the coroutine that `work` makes in the loop, or what it raises.

        StreamClosed when the loop is stopped. RuntimeError in a process that was
        forked since, where the thread is missing, and in the loop's own thread,
        which would wait for itself.
        """
        self._check()
        outcome: Future[_T] = Future()
        tasks: list[asyncio.Task[_T]] = []

        def begin() -> None:
            task = self._loop.create_task(work())
            tasks.append(task)
            task.add_done_callback(lambda task: _settle(outcome, task))

        self._awaited.add(outcome)
        try:
            self._schedule(begin)
            return outcome.result()
        except BaseException:
            if not outcome.done():
                self._cancel(tasks, outcome)
            raise
        finally:
            self._awaited.discard(outcome)

    def stop(self) -> None:
        """Cancel what is running, and end the thread. Idempotent."""
        if os.getpid() != self._process:
            return
        if threading.current_thread() is self._thread:
            raise RuntimeError("the client cannot be closed in its own event loop")
        if not self._loop.is_closed():
            self._schedule(self._loop.stop)
        self._thread.join()

    def _schedule(self, step: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(step)
        except RuntimeError as error:
            raise StreamClosed("the client is closed") from error

    def _cancel(self, tasks: list[asyncio.Task[_T]], outcome: Future[_T]) -> None:
        def cancel() -> None:
            for task in tasks:
                task.cancel()

        self._schedule(cancel)
        wait({outcome}, END_SECONDS)

    def _check(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("the client was made before a fork: make one in each process")
        if threading.current_thread() is self._thread:
            raise RuntimeError("called in the client's own event loop, which would wait for itself")

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(_end_all())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()
            for outcome in list(self._awaited):  # what had not begun
                if not outcome.done():
                    outcome.set_exception(StreamClosed("the client was closed"))


def _settle(outcome: Future[_T], task: asyncio.Task[_T]) -> None:
    if task.cancelled():
        outcome.set_exception(StreamClosed("the client was closed"))
    elif error := task.exception():
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())


async def _end_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=END_SECONDS)
