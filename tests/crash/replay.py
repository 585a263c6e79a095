"""`zaaz replay` as people run it: a process that finds the server's key by its data directory."""

import asyncio
import os
import sys
from pathlib import Path

from tests.crash.trace import FILE
from tests.run.command import Command, Ended
from tests.run.processes import until
from tests.serving import MODEL

ZAAZ = Path(sys.executable).with_name("zaaz")
RUN_SECONDS = 300.0
FIRST_WORDS_SECONDS = 60.0


class Replay:
    """One run; `start` again goes on with it."""

    def __init__(self, server: Command, log: Path, *, users: int, events: int, rate: int) -> None:
        self.run_id = ""
        self._server = server
        self._log = log
        self._rate = rate
        self._options = [str(FILE), "--users", str(users), "--model", MODEL]
        self._options += ["--events", str(events), "--json", "--target", server.ready["grpc"]]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns once the run has an id, so that it could be continued."""
        options = [*self._options, "--rate", str(self._rate)]
        if self.run_id:
            options += ["--run", self.run_id]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ZAAZ_")}
        environment["ZAAZ_DATA_DIR"] = str(self._server.data_dir)
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                ZAAZ,
                "replay",
                *options,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        await until(self._has_spoken, FIRST_WORDS_SECONDS)
        self.run_id = self._log.read_text().split("Run ", 1)[1].split(".", 1)[0]

    def _has_spoken(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, self._log.read_text()
        return "\n" in self._log.read_text()

    async def end(self) -> Ended:
        """Waits until it is through."""
        assert self._process is not None
        stdout, _ = await asyncio.wait_for(self._process.communicate(), RUN_SECONDS)
        assert self._process.returncode is not None
        return Ended(self._process.returncode, stdout.decode(), self._log.read_text())

    async def kill(self) -> None:
        """kill -9."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self.end()
