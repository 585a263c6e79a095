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
from server.mongo.layout import Layout

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
    # Nobody here reads the past: its default of 300 s keeps every version of a wallet so long.
    "minSnapshotHistoryWindowInSeconds": "0",
}
CHECKPOINT_SECONDS = 20
"""Of writes, at most, a mongod that was killed has to do again before it serves (default: 60)."""
_STORAGE_ENGINE = "eviction_dirty_target=20,eviction_dirty_trigger=40"
"""Shares of the cache that may be changed and not written yet; the defaults are 5 and 20.

An entry's id is random, so a batch changes pages all over a grown ledger's index, and the
smaller share has each of them written again and again between two checkpoints.
"""
_INHERITED = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "TZ")


@dataclass(frozen=True, slots=True)
class Tuning:
    """WiredTiger's cache, and server parameters beside the ones that are always set."""

    cache_gigabytes: float
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Run:
    """A mongod that was started; its log begins at byte `log_from` of the log file."""

    process: asyncio.subprocess.Process
    program: Path
    layout: Layout
    log_from: int

    async def outcome(self) -> EmbeddedMongodFailed:
        """Wait for its end, and say why it came."""
        code = await self.process.wait()
        said = await asyncio.to_thread(explain, code, self.program, self.layout, self.log_from)
        return EmbeddedMongodFailed(said)

    async def end(self) -> None:
        """SIGTERM, and SIGKILL when that takes too long. Nothing is lost by either."""
        if self.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), STOP_TIMEOUT_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()


async def spawn(layout: Layout, tuning: Tuning) -> Run:
    """Start mongod and return once it listens. EmbeddedMongodFailed when it does not."""
    program = find_mongod()
    try:
        log_from = _bound_log(layout.log)
        process = await _execute(program, layout, tuning)
    except OSError as error:
        raise EmbeddedMongodFailed(
            f"mongod cannot be started on {layout.data_dir}: {error.strerror}"
        ) from error
    run = Run(process, program, layout, log_from)
    try:
        await _until_listening(run)
    except BaseException:
        await run.end()
        raise
    return run


async def _execute(program: Path, layout: Layout, tuning: Tuning) -> asyncio.subprocess.Process:
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
        "--wiredTigerEngineConfigString",
        _STORAGE_ENGINE,
        "--syncdelay",
        str(CHECKPOINT_SECONDS),
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


async def _until_listening(run: Run) -> None:
    try:
        async with asyncio.timeout(LISTEN_TIMEOUT_SECONDS):
            while not await _listens(run.layout.socket):
                if run.process.returncode is not None:
                    raise await run.outcome()
                await asyncio.sleep(LISTEN_POLL_SECONDS)
    except TimeoutError:
        raise EmbeddedMongodFailed(
            f"mongod does not listen after {LISTEN_TIMEOUT_SECONDS} s; its log is {run.layout.log}"
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


def _bound_log(log: Path) -> int:
    """Begin a new log when this one has grown, keeping one older. Its size in bytes."""
    if not log.exists():
        return 0
    size = log.stat().st_size
    if size <= MAX_LOG_BYTES:
        return size
    log.replace(log.with_suffix(".log.1"))
    return 0
