"""The embedded mongod: a real MongoDB beside the server, for one machine.

It listens on a Unix socket that only this user can open and on no TCP port,
belongs to one server process, dies with it, and is restarted when it dies
alone. Data is durable through kill -9 of everything.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from server.mongo.errors import EmbeddedMongodFailed
from server.mongo.ownership import end_orphan, lay_out, own
from server.mongo.process import REPLICA_SET, Layout, Tuning, end, spawn
from server.mongo.replica_set import make_primary, url_of

CACHE_GIGABYTES = 1.0
FIRST_RESTART_DELAY_SECONDS = 0.1
MAX_RESTART_DELAY_SECONDS = 10.0
STABLE_AFTER_SECONDS = 60.0

_log = logging.getLogger(__name__)


class EmbeddedMongod:
    """A supervised mongod on a data directory.

    `cache_gigabytes` bounds WiredTiger's cache; `parameters` are mongod's
    `--setParameter`. `healthy` is False while it is not there; `last_failure`
    then says why it could not be started again.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        cache_gigabytes: float = CACHE_GIGABYTES,
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        self._data_dir = data_dir
        self._tuning = Tuning(cache_gigabytes, parameters or {})
        self._serving = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._ownership: IO[bytes] | None = None
        self.last_failure: str | None = None

    @property
    def healthy(self) -> bool:
        """Whether mongod runs as a primary."""
        return self._serving.is_set()

    @property
    def pid(self) -> int | None:
        """The process id of the mongod that runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process is not None and running else None

    async def wait_healthy(self) -> None:
        """Return when it serves."""
        await self._serving.wait()

    async def start(self) -> str:
        """Start mongod and return its connection string once it takes writes.

        Raises EmbeddedMongodFailed, which says what helps.
        """
        layout = lay_out(self._data_dir)
        self._ownership = own(layout)
        try:
            if await end_orphan(layout):
                _log.warning("ended a mongod that a killed server had left behind")
            await self._launch(layout)
        except BaseException:
            await self.stop()
            raise
        self._supervisor = asyncio.create_task(self._supervise(layout), name="embedded-mongod")
        return url_of(layout.socket, REPLICA_SET)

    async def stop(self) -> None:
        """End mongod in order, within 15 s, and give up the data directory. Idempotent."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None
        self._serving.clear()
        await self._end_process()
        if self._ownership is not None:
            self._ownership.close()
            self._ownership = None

    async def _launch(self, layout: Layout) -> None:
        self._process = await spawn(layout, self._tuning)
        await make_primary(layout.socket, REPLICA_SET)
        self.last_failure = None
        self._serving.set()

    async def _supervise(self, layout: Layout) -> None:
        delay = FIRST_RESTART_DELAY_SECONDS
        while True:
            lasted = await self._outlast()
            if lasted > STABLE_AFTER_SECONDS:
                delay = FIRST_RESTART_DELAY_SECONDS
            await asyncio.sleep(delay)
            delay = min(delay * 2, MAX_RESTART_DELAY_SECONDS)
            await self._relaunch(layout)

    async def _outlast(self) -> float:
        """Return when mongod has ended: after how many seconds. At once if it is not running."""
        if self._process is None:
            return 0.0
        since = time.monotonic()
        code = await self._process.wait()
        self._process = None
        self._serving.clear()
        _log.error("mongod ended with %s; it is started again", code)
        return time.monotonic() - since

    async def _relaunch(self, layout: Layout) -> None:
        try:
            await self._launch(layout)
        except EmbeddedMongodFailed as failure:
            self.last_failure = str(failure)
            _log.error("%s", failure)
            await self._end_process()

    async def _end_process(self) -> None:
        if self._process is not None:
            await end(self._process)
            self._process = None
