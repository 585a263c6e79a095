"""The processes under measurement: starting them and ending them."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from server.app import LOCAL_CLIENT
from server.mongo.layout import lay_out
from server.mongo.process import REPLICA_SET
from server.mongo.replica_set import url_of

READY_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 30
COMPLAINT_CHARACTERS = 4_000
SAMPLES_PER_SECOND = 200
SERVER_DATABASE = "zaaz"
SECRET = "of servers that live as long as a figure is taken"


class BenchError(Exception):
    """The figure could not be taken, or what was measured did not do its work."""


@dataclass(frozen=True, slots=True)
class Served:
    """A server with its embedded mongod. `pids` by role, the bench's own as `client`."""

    target: str
    api_key: str
    mongo_url: str
    pids: Mapping[str, int]

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call of it carries."""
        return (("authorization", f"Bearer {self.api_key}"),)


@asynccontextmanager
async def serving(
    data_dir: Path, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Served]:
    """`python -m server run` with its own mongod, on a free port, logging little."""
    log, environment = data_dir / "server.log", {**_environment(data_dir), **(settings or {})}
    async with started(["server", "run"], log, environment) as (pid, ready):
        layout = lay_out(data_dir / "mongo")
        mongod = int((layout.database / "mongod.lock").read_text())
        yield Served(
            ready["grpc"],
            ready["api_key"],
            url_of(layout.socket, REPLICA_SET),
            {"server": pid, "mongod": mongod, "client": os.getpid()},
        )


def _environment(data_dir: Path) -> dict[str, str]:
    return {
        **{name: text for name, text in os.environ.items() if not name.startswith("ZAAZ_")},
        "ZAAZ_GRPC_ADDRESS": "127.0.0.1:0",
        "ZAAZ_METRICS_ADDRESS": "",
        "ZAAZ_REST_ADDRESS": "off",
        "ZAAZ_DATA_DIR": str(data_dir),
        "ZAAZ_LOG_LEVEL": "WARNING",
    }


@dataclass(frozen=True, slots=True)
class Beside:
    """A database of its own on another server's mongod, for servers that come and go."""

    host: Served
    directory: Path
    database: str

    async def prepare(self) -> str:
        """Sets the first prices, makes a key of the local client, and returns it."""
        await self._say("server", "seed")
        made = await self._say(
            *("server", "create-key", "--client-id", LOCAL_CLIENT, "--scope", "admin")
        )
        return str(made["api_key"])

    @asynccontextmanager
    async def serving(self, api_key: str) -> AsyncIterator[Served]:
        """`python -m server run` on that database."""
        async with self._started("server", "run") as (pid, ready):
            pids = {**self.host.pids, "server": pid}
            yield Served(ready["grpc"], api_key, self.host.mongo_url, pids)

    async def _say(self, *module: str) -> dict[str, Any]:
        async with self._started(*module) as (_, said):
            return said

    def _started(self, *module: str) -> AbstractAsyncContextManager[tuple[int, dict[str, Any]]]:
        environment = {
            **_environment(self.directory),
            "ZAAZ_MONGO_URL": self.host.mongo_url,
            "ZAAZ_MONGO_DATABASE": self.database,
            "ZAAZ_SECRET": SECRET,
        }
        return started(module, self.directory / f"{self.database}.log", environment)


@asynccontextmanager
async def echoing(data_dir: Path) -> AsyncIterator[tuple[str, int]]:
    """The bare echo server's address and process id."""
    async with started(["bench.echo"], data_dir / "echo.log", os.environ) as (pid, ready):
        yield ready["grpc"], pid


@asynccontextmanager
async def recorded(pid: int, output: Path | None) -> AsyncIterator[None]:
    """py-spy samples the process while the block runs: an .svg flame graph, or folded stacks.

    It slows the process down: figures taken meanwhile are not figures.
    """
    if output is None:
        yield
        return
    beside = Path(sys.executable).parent
    program = shutil.which("py-spy", path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise BenchError("no py-spy: pip install py-spy")
    process = await asyncio.create_subprocess_exec(
        *(program, "record", "--pid", str(pid), "--rate", str(SAMPLES_PER_SECOND)),
        # Only who holds the interpreter: threads that wait in C look busy from outside.
        *("--gil", "--format", "flamegraph" if output.suffix == ".svg" else "raw"),
        *("--output", str(output)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        await _end(process, signal.SIGINT)
    _require_recording(output, pid)


def _require_recording(output: Path, pid: int) -> None:
    if not output.exists():
        raise BenchError(f"py-spy could not sample process {pid}: may this user ptrace it?")


@asynccontextmanager
async def started(
    module: Sequence[str], log: Path, environment: Mapping[str, str]
) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    """`python -m MODULE...` once it has printed its ready line: its pid, and that line."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as complaints:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *module),
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
            env=environment,
        )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), READY_TIMEOUT_SECONDS)
        if not line:
            raise BenchError(f"python -m {' '.join(module)} does not serve")
        yield process.pid, orjson.loads(line)
    except Exception as error:
        error.add_note(_last_words(log))
        raise
    finally:
        await _end(process, signal.SIGTERM)


def _last_words(log: Path) -> str:
    text = log.read_text(errors="replace")[-COMPLAINT_CHARACTERS:]
    return f"{log.name} ends with:\n{text}" if text else f"{log.name} is empty"


async def _end(process: asyncio.subprocess.Process, how: signal.Signals) -> None:
    if process.returncode is not None:
        return
    process.send_signal(how)
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
