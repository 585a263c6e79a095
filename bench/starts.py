"""How long a server takes to start: beside a mongod that runs, and cold, with both killed."""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.processes import SECRET, BenchError, Beside, Served, serving
from bench.setting import Bench

END_TIMEOUT_SECONDS = 30
Work = Callable[[Served], Awaitable[None]]


async def restarts(bench: Bench, grown: Beside, api_key: str, rounds: int) -> dict[str, Any]:
    """Seconds to start a server beside the running mongod, on a grown database and a new one."""
    new = Beside(bench.served, bench.directory, "new")
    new_key = await new.prepare()
    seconds: dict[str, list[float]] = {"grown": [], "empty": []}
    for _ in range(rounds):
        async with timed(grown.serving(api_key), seconds["grown"]):
            pass
        async with timed(new.serving(new_key), seconds["empty"]):
            pass
    return {name: named(of) for name, of in seconds.items()}


async def cold_starts(bench: Bench, database: str, work: Work, rounds: int) -> dict[str, Any]:
    """Seconds to start a server with its embedded mongod, after kill -9 of both.

    "grown": on the bench's data directory and this database of it, after some
    `work` each time, so that there is a journal to recover; ends the bench's own
    server. "empty": on a directory without a ledger; "first": on one without files.
    """
    seconds: dict[str, list[float]] = {"grown": [], "empty": [], "first": []}
    ours = {"ZAAZ_MONGO_DATABASE": database, "ZAAZ_SECRET": SECRET}
    await kill(bench.served)
    for _ in range(rounds):
        await start_and_kill(bench.directory, seconds["grown"], work, ours)
        with tempfile.TemporaryDirectory(prefix="zaaz-bench-") as directory:
            await start_and_kill(Path(directory), seconds["first"])
            await start_and_kill(Path(directory), seconds["empty"])
    return {name: named(of) for name, of in seconds.items()}


async def nothing(_: Served) -> None:
    """The work of a start that is to find nothing."""


async def start_and_kill(
    directory: Path,
    seconds: list[float],
    work: Work = nothing,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Times one start on the directory, and ends it by kill -9 after the work."""
    async with timed(serving(directory, environment), seconds) as served:
        await work(served)
        await kill(served)


@asynccontextmanager
async def timed(
    starting: AbstractAsyncContextManager[Served], seconds: list[float]
) -> AsyncIterator[Served]:
    """Adds the seconds from before the process until its health says SERVING."""
    began = time.perf_counter()
    async with starting as served:
        await _until_serving(served)
        seconds.append(time.perf_counter() - began)
        yield served


async def _until_serving(served: Served) -> None:
    async with grpc.aio.insecure_channel(served.target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        async for answer in health.Watch(health_pb2.HealthCheckRequest()):
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
    raise BenchError("the server never said that it serves")


async def kill(served: Served) -> None:
    """kill -9 of mongod and the server; returns once both have ended."""
    # mongod first: the kernel would have it end in order once its server is gone.
    handles = [os.pidfd_open(served.pids[role]) for role in ("mongod", "server")]
    try:
        for handle in handles:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        async with asyncio.timeout(END_TIMEOUT_SECONDS):
            for handle in handles:
                await _ended(handle)
    finally:
        for handle in handles:
            os.close(handle)


async def _ended(handle: int) -> None:
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(handle)


def named(seconds: Sequence[float]) -> dict[str, float]:
    """Their median, least and most."""
    named = {"median": median(seconds), "least": min(seconds), "most": max(seconds)}
    return {name: round(each, 2) for name, each in named.items()}
