"""`python -m server` as a process of its own, on a data directory of its own."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.run.processes import ended, mongods

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
"""Bound on a start. It takes two seconds, but the machine may be busy."""
EXIT_SECONDS = 40.0


class ServerEnded(Exception):  # noqa: N818
    """The server ended instead of serving."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that is over."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[Any]:
        """What it printed: JSON lines."""
        return [json.loads(line) for line in self.stdout.splitlines()]


class Command:
    """A `python -m server ...` that may be started again and again with the same settings."""

    def __init__(self, data_dir: Path, log: Path, *arguments: str, **settings: str) -> None:
        """`log` takes its stderr. `settings` become ZAAZ_* variables."""
        self.data_dir = data_dir
        self._arguments = arguments or ("run",)
        self._settings = {
            "data_dir": str(data_dir),
            "grpc_address": "127.0.0.1:0",
            "metrics_address": "",
            "rest_address": "off",
            **settings,
        }
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._stdout = b""
        self.ready: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and nobody has seen it end."""
        return self._process is not None and self._process.returncode is None

    async def spawn(self) -> None:
        """Starts it, no more."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ZAAZ_")}
        environment |= {f"ZAAZ_{k.upper()}": v for k, v in self._settings.items()}
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "server",
                *self._arguments,
                cwd=ROOT,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self._stdout = b""

    async def start(self) -> dict[str, Any]:
        """Starts it and returns its ready line. ServerEnded with what it said."""
        await self.spawn()
        assert self._process is not None
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), START_SECONDS)
        self._stdout = line
        if not line:
            over = await self.end()
            raise ServerEnded(f"exit code {over.code}: {over.stderr}")
        self.ready = json.loads(line)
        return self.ready

    async def end(self) -> Ended:
        """Waits until it has ended by itself or by a signal sent before."""
        assert self._process is not None
        rest, _ = await asyncio.wait_for(self._process.communicate(), EXIT_SECONDS)
        code = self._process.returncode
        assert code is not None
        return Ended(code, (self._stdout + rest).decode(), self.stderr)

    async def run(self) -> Ended:
        """Starts it and waits for its end."""
        await self.spawn()
        return await self.end()

    @property
    def stderr(self) -> str:
        """What it has logged since it was started."""
        return self._log.read_text()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> Ended:
        """Ends it in order."""
        self.send(number)
        return await self.end()

    def send(self, number: signal.Signals) -> None:
        """Signals the process itself."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill_mongod(self) -> list[int]:
        """kill -9 for the mongod on its data directory; its pid, if there was one."""
        killed = mongods(self.data_dir)
        for pid in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return killed

    async def kill(self) -> None:
        """kill -9 for the server. Its mongod is told by the kernel, and may still be at it."""
        self.send(signal.SIGKILL)
        await self.end()

    async def kill_everything(self) -> None:
        """kill -9 for the server and its mongod in one breath."""
        self.send(signal.SIGKILL)
        killed = self.kill_mongod()
        await self.end()
        for pid in killed:
            await ended(pid)

    async def clean_up(self) -> None:
        """Leaves nothing running, whatever has happened."""
        if self.is_running:
            await self.kill_everything()
        for pid in self.kill_mongod():
            await ended(pid)


def free_port() -> int:
    """A port that nothing listens on, below the ones that connections go out from.

    So nobody is given it while its server is being started again.
    """
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
