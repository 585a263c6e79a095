"""Tasks that run as long as the server does."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_log = logging.getLogger(__name__)


class Background:
    """Loops beside the calls. One that ends by itself is a defect: `failed` says so."""

    def __init__(self) -> None:
        self.failed = asyncio.Event()
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        """Runs `loop` until `stop`."""
        task = asyncio.create_task(loop, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    async def stop(self) -> None:
        """Cancels all of them, the last started first, and waits for them."""
        for task in reversed(self._tasks):
            task.cancel()
            await asyncio.wait({task})

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled():
            _log.critical(
                "a loop ended",
                exc_info=task.exception(),
                extra={"fields": {"loop": task.get_name()}},
            )
            self.failed.set()
