"""Work that has to come to its end although its caller is cancelled."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

END_SECONDS: Final = 1.0
"""How long a task that was cancelled may take to end."""

_T = TypeVar("_T")


async def outlast(work: Coroutine[Any, Any, _T], grace_seconds: float) -> _T:
    """The result of `work`, which a cancellation of the caller leaves so long to come to its end.

    Then the CancelledError is raised; what `work` itself would have raised is lost.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        await see_through(task, grace_seconds)
        raise
    return task.result()


async def see_through(task: "asyncio.Task[Any]", seconds: float) -> None:
    """Wait so long for the task's end, then cancel it.

    A cancellation of the caller does not shorten it: it is for one that was
    cancelled before and is about to say so.
    """
    await _wait(task, seconds)
    if not task.done():
        task.cancel()
        await _wait(task, END_SECONDS)
    if task.done() and not task.cancelled():
        task.exception()  # it counts as seen


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancel the task and wait for its end, END_SECONDS at most. It logs its own errors."""
    task.cancel()
    await asyncio.wait({task}, timeout=END_SECONDS)


async def _wait(task: "asyncio.Task[Any]", seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not task.done() and (left := deadline - time.monotonic()) > 0:
        try:
            await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError:
            continue
