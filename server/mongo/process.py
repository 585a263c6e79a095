"""One run of the embedded mongod: starting it, waiting until it listens, ending it."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from server.mongo.binary import find_mongod
from server.mongo.diagnosis import explain
from server.mongo.errors import EmbeddedMongodFailed

REPLICA_SET = "zaaz"
LISTEN_TIMEOUT_SECONDS = 60
LISTEN_POLL_SECONDS = 0.02
STOP_TIMEOUT_SECONDS = 15
MAX_LOG_BYTES = 16 * 1024 * 1024
SLOW_OPERATION_MS = 1_000
OPLOG_MEGABYTES = 1_024
_PARAMETERS = {
    # Metrics for MongoDB's support: writes that nobody here reads.
    "diagnosticDataCollectionEnabled": "false",
    # How long a transaction whose client is gone keeps its rows from others; ours take a second.
    "transactionLifetimeLimitSeconds": "20",
}
_INHERITED = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "TZ")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the embedded mongod keeps what: all in the data directory but perhaps the socket."""

    data_dir: Path
    socket: Path

    @property
    def database(self) -> Path:
        """mongod's own directory (its dbpath)."""
        return self.data_dir / "mongo"

    @property
    def log(self) -> Path:
        """mongod's log, as JSON lines."""
        return self.data_dir / "mongod.log"

    @property
    def output(self) -> Path:
        """What mongod printed before it had a log: the loader's complaints."""
        return self.data_dir / "mongod.out"

    @property
    def owner(self) -> Path:
        """Locked by the server process that the data directory belongs to."""
        return self.data_dir / "mongod.owner"


@dataclass(frozen=True, slots=True)
class Tuning:
    """WiredTiger's cache, and server parameters beside the ones that are always set."""

    cache_gigabytes: float
    parameters: Mapping[str, str]


async def spawn(layout: Layout, tuning: Tuning) -> asyncio.subprocess.Process:
    """Start mongod and return once it listens. EmbeddedMongodFailed when it does not."""
    program = find_mongod()
    try:
        process = await _execute(program, layout, tuning)
    except OSError as error:
        raise EmbeddedMongodFailed(
            f"mongod cannot be started on {layout.data_dir}: {error.strerror}"
        ) from error
    try:
        await _until_listening(process, layout, program)
    except BaseException:
        await end(process)
        raise
    return process


async def _execute(program: Path, layout: Layout, tuning: Tuning) -> asyncio.subprocess.Process:
    _bound_log(layout.log)
    with layout.output.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            *_dying_with_us(),
            str(program),
            *_arguments(layout, tuning),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # A Ctrl-C in the terminal is for the server, which then ends mongod in order.
            start_new_session=True,
            # None of the server's secrets.
            env={name: os.environ[name] for name in _INHERITED if name in os.environ},
        )


async def end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, and SIGKILL when that takes too long. Nothing is lost by either."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_SECONDS)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _dying_with_us() -> list[str]:
    """The kernel ends mongod when this process dies, however it dies (Linux only).

    By a helper program, because code between fork and exec is unsafe once
    gRPC's threads run. Elsewhere a mongod that was left is ended at next start.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []


def _arguments(layout: Layout, tuning: Tuning) -> list[str]:
    parameters = {**_PARAMETERS, **tuning.parameters}
    return [
        "--dbpath",
        str(layout.database),
        "--replSet",
        REPLICA_SET,
        # A socket as the only address: no TCP port, and not the usual socket in /tmp either.
        "--bind_ip",
        str(layout.socket),
        "--nounixsocket",
        "--filePermissions",
        "0600",
        # CVE-2025-14847 reads memory through a compressed message's length.
        "--networkMessageCompressors",
        "disabled",
        "--wiredTigerCacheSizeGB",
        str(tuning.cache_gigabytes),
        "--oplogSize",
        str(OPLOG_MEGABYTES),
        "--logpath",
        str(layout.log),
        "--logappend",
        "--quiet",
        "--slowms",
        str(SLOW_OPERATION_MS),
        *(f"--setParameter={name}={value}" for name, value in parameters.items()),
    ]


async def _until_listening(
    process: asyncio.subprocess.Process, layout: Layout, program: Path
) -> None:
    try:
        async with asyncio.timeout(LISTEN_TIMEOUT_SECONDS):
            while not await _listens(layout.socket):
                if process.returncode is not None:
                    code = process.returncode
                    raise EmbeddedMongodFailed(
                        await asyncio.to_thread(explain, code, program, layout)
                    )
                await asyncio.sleep(LISTEN_POLL_SECONDS)
    except TimeoutError:
        raise EmbeddedMongodFailed(
            f"mongod does not listen after {LISTEN_TIMEOUT_SECONDS} s; its log is {layout.log}"
        ) from None


async def _listens(socket: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _bound_log(log: Path) -> None:
    """Keep one older log at most, and start a new one when this one has grown."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > MAX_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
