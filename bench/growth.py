"""The stream, and a server's start, with millions of entries before it and with none.

Both servers are on one mongod, in databases of their own. The one with nothing
is another for each run, so that it has nothing again. Starts are taken last:
the cold ones begin with kill -9 of what has served so far.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import grpc

from bench.consume import SPREAD_WALLETS
from bench.pairs import Run, Sides
from bench.processes import Beside, Served
from bench.setting import Bench, Size, tell
from bench.starts import cold_starts, restarts
from bench.usage import USAGE_EVENTS, Stream
from bench.wallets import make_wallets

ENTRIES = Size(200_000, 2_000_000)
WARM_EVENTS = 10_000
"""What a server that was just started is given first: it is not to be slow for being new."""
RESTARTS = Size(2, 5)
TOLD_TIMES = 10


class Empty:
    """The baseline: the stream on a server and a database that are new for each run."""

    def __init__(self, bench: Bench, pids: dict[str, int]) -> None:
        self._bench = bench
        self._pids = pids
        self._running = AsyncExitStack()
        self._number = 0

    async def prepare(self, operations: int) -> Run:
        """Ends the last run's server, and starts and warms this run's."""
        await self.close()
        self._number += 1
        beside = Beside(self._bench.served, self._bench.directory, f"empty_{self._number}")
        served = await self._running.enter_async_context(beside.serving(await beside.prepare()))
        channel = await self._running.enter_async_context(grpc.aio.insecure_channel(served.target))
        self._pids["empty"] = served.pids["server"]
        users = await make_wallets(channel, served, SPREAD_WALLETS)
        stream = Stream(channel, served, users)
        await stream.flow(min(WARM_EVENTS, operations), lambda _: None)
        return await stream.prepare(operations)

    async def close(self) -> None:
        """Ends the last run's server, if there is one."""
        self._pids.pop("empty", None)
        await self._running.aclose()


@asynccontextmanager
async def growth(bench: Bench) -> AsyncIterator[Sides]:
    """The stream after ENTRIES over the stream after none; besides, how long servers start."""
    grown = Beside(bench.served, bench.directory, "grown")
    api_key = await grown.prepare()
    pids = {"host": bench.served.pids["server"]}
    async with AsyncExitStack() as running:
        served = await running.enter_async_context(grown.serving(api_key))
        channel = await running.enter_async_context(grpc.aio.insecure_channel(served.target))
        pids["server"] = served.pids["server"]
        users = await make_wallets(channel, served, SPREAD_WALLETS)
        stream = Stream(channel, served, users)
        entries = bench.plan.operations(ENTRIES)
        seconds = await _fill(stream, entries)
        empty = Empty(bench, pids)
        running.push_async_callback(empty.close)

        async def besides() -> dict[str, Any]:
            await running.aclose()
            rounds = bench.plan.size(RESTARTS)
            return {
                "entries_before": entries,
                "fill_seconds": seconds,
                "restart_seconds": await restarts(bench, grown, api_key, rounds),
                "cold_start_seconds": await cold_starts(
                    bench, grown.database, partial(_stream_some, users), rounds
                ),
            }

        events = bench.plan.operations(USAGE_EVENTS)
        yield Sides(stream, empty, (events, events), pids, besides)


async def _stream_some(users: Sequence[str], served: Served) -> None:
    async with grpc.aio.insecure_channel(served.target) as channel:
        await Stream(channel, served, users).flow(WARM_EVENTS, lambda _: None)


async def _fill(stream: Stream, entries: int) -> float:
    told = 0

    def heard(billed: int) -> None:
        nonlocal told
        if billed * TOLD_TIMES >= entries * (told + 1):
            told += 1
            tell(f"{billed:,} entries after {time.perf_counter() - started:.0f} s")

    started = time.perf_counter()
    await stream.flow(entries, heard)
    return round(time.perf_counter() - started, 1)
