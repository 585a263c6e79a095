"""The thread that does what the disk takes its time for."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from zaaz_client.spool.log import SpoolLog

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Disk:
    """Jobs on one log, one after the other. A cancelled wait does not undo its job."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="zaaz-spool")
        self.log: SpoolLog

    async def open(self, path: Path, writer_id: str, max_bytes: int) -> None:
        """Raises what SpoolLog raises."""
        opening = self._executor.submit(SpoolLog, path, writer_id, max_bytes)
        try:
            self.log = await asyncio.wrap_future(opening)
        except BaseException:
            # The job may be done all the same: what it locked must not stay locked.
            opening.add_done_callback(_let_go)
            self._executor.shutdown(wait=False)
            raise

    async def run(self, job: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What `job` returns or raises, once those before it are done."""
        return await asyncio.wrap_future(self._executor.submit(job, *args, **kwargs))

    async def close(self, acknowledged: int) -> None:
        """Close the log, once all jobs are done."""
        closing = self._executor.submit(self.log.close, acknowledged)
        self._executor.shutdown(wait=False)
        await asyncio.wrap_future(closing)


def _let_go(opening: "Future[SpoolLog]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
