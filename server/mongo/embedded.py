"""The embedded mongod: a real MongoDB beside the server, for one machine.

It listens on a Unix socket that only this user can open and on no TCP port,
belongs to one server process, dies with it, and is restarted when it dies
alone. Data is durable through kill -9 of everything.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from server.kernel.tasks import end
from server.mongo.errors import EmbeddedMongodFailed
from server.mongo.layout import Layout, lay_out
from server.mongo.ownership import end_orphan, own
from server.mongo.process import REPLICA_SET, Run, Tuning, spawn
from server.mongo.replica_set import make_primary, url_of

CACHE_GIGABYTES = 1.0
FIRST_RESTART_DELAY_SECONDS = 0.1
MAX_RESTART_DELAY_SECONDS = 10.0
STABLE_AFTER_SECONDS = 60.0
LAST_WORDS_SECONDS = 2.0

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
        self._run: Run | None = None
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
        if self._run is None or self._run.process.returncode is not None:
            return None
        return self._run.process.pid

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
            await end(self._supervisor)
            self._supervisor = None
        self._serving.clear()
        await self._end_run()
        if self._ownership is not None:
            self._ownership.close()
            self._ownership = None

    async def _launch(self, layout: Layout) -> None:
        self._run = await spawn(layout, self._tuning)
        try:
            await make_primary(layout.socket, REPLICA_SET)
        except EmbeddedMongodFailed as failure:
            raise await self._explained(self._run, failure) from failure
        self.last_failure = None
        self._serving.set()

    async def _explained(self, run: Run, failure: EmbeddedMongodFailed) -> EmbeddedMongodFailed:
        """If it is dying, its own reason is the better one."""
        try:
            return await asyncio.wait_for(run.outcome(), LAST_WORDS_SECONDS)
        except TimeoutError:
            return failure

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
        if self._run is None:
            return 0.0
        since = time.monotonic()
        end = await self._run.outcome()
        self._run = None
        self._serving.clear()
        _log.error("%s; it is started again", end)
        return time.monotonic() - since

    async def _relaunch(self, layout: Layout) -> None:
        try:
            await self._launch(layout)
        except EmbeddedMongodFailed as failure:
            self.last_failure = str(failure)
            _log.error("%s", failure)
            await self._end_run()
        except Exception as defect:  # noqa: BLE001 - the supervisor outlives whatever it meets
            self.last_failure = repr(defect)
            _log.exception("starting mongod again failed")
            await self._end_run()

    async def _end_run(self) -> None:
        if self._run is not None:
            await self._run.end()
            self._run = None
