"""Tasks that run beside the calls, and how they are ended."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

CANCEL_AGAIN_SECONDS = 0.5
MAX_CANCELS = 20

_log = logging.getLogger(__name__)
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


async def map_in_slices(
    function: Callable[[_Item], _Made], items: Sequence[_Item], size: int
) -> list[_Made]:
    """`function` of every item, in order; the event loop runs between slices of `size`."""
    made: list[_Made] = []
    for start in range(0, len(items), size):
        made += map(function, items[start : start + size])
        await asyncio.sleep(0)
    return made


async def to_its_end(work: Coroutine[Any, Any, _Made]) -> _Made:
    """What the work comes to. Cancelled meanwhile, it is finished first."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        raise


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancels the task and waits for its end; what it raises is its own affair.

    Python 3.11's `wait_for`, on which the driver waits, loses a cancellation
    that arrives together with its result: so it is repeated, MAX_CANCELS times.
    """
    for _ in range(MAX_CANCELS):
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN_SECONDS)
        if task.done():
            return
    _log.critical("a task will not end", extra={"fields": {"task": task.get_name()}})


class Background:
    """Loops of the whole server. One that ends by itself is a defect: `failed` says so."""

    def __init__(self) -> None:
        self.failed = asyncio.Event()
        self._tasks: list[asyncio.Task[Any]] = []
        self._stopping = False

    def start(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        """Runs `loop` until `stop`."""
        task = asyncio.create_task(loop, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    async def stop(self) -> None:
        """Ends all of them, the last started first."""
        self._stopping = True
        for task in reversed(self._tasks):
            await end(task)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        if self._stopping and task.cancelled():
            return
        error = None if task.cancelled() else task.exception()
        _log.critical("a loop ended", exc_info=error, extra={"fields": {"task": task.get_name()}})
        self.failed.set()
