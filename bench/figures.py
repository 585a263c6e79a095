"""The figures: what is compared with what, and what we aim for."""

import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from pymongo import AsyncMongoClient

from bench.consume import Consumes, Echoes
from bench.gateway import Gets as RestGets
from bench.gateway import bare, gateway
from bench.holds import Checks, HoldPairs
from bench.machine import peak_mebibytes
from bench.pairs import Sides, summarize, take_pairs
from bench.processes import Served, echoing, recorded, serving
from bench.resources import PAGE_ROWS, FindOnes, Finds, Gets, Lists, Logs, make_logs, some_ids
from bench.usage import BareInserts, Stream
from bench.wallets import make_wallets

SPREAD_WALLETS = 1_000
USAGE_EVENTS = 60_000
CONSUMES = 6_000
CHECKS = 12_000
HOLDS = 3_000
ECHOES = 20_000
DEEP_PAGE = 10_000
LOGS = 100_000
PAGES = 600
GETS = 6_000
REST_GETS, JSON_GETS = 10_000, 30_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How a figure is taken. `scale` multiplies the operations of a run."""

    pairs: int
    scale: float
    recording: Path | None = None

    def operations(self, count: int) -> int:
        """So many, to scale."""
        return max(1, round(count * self.scale))


@dataclass(slots=True)
class Bench:
    """A fresh server, a channel to it, and a directory for whatever else it takes."""

    served: Served
    channel: grpc.aio.Channel
    directory: Path
    plan: Plan
    wallets_seconds: float = 0.0

    async def wallets(self, count: int) -> list[str]:
        """The users of new wallets."""
        started = time.perf_counter()
        users = await make_wallets(self.channel, self.served, count)
        self.wallets_seconds = round(time.perf_counter() - started, 1)
        tell(f"{count:,} wallets made and funded in {self.wallets_seconds} s")
        return users


Open = Callable[[Bench], AbstractAsyncContextManager[Sides]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A ratio that we watch."""

    name: str
    what: str
    aim: float
    open: Open


def _usage(wallets: int) -> Open:
    @asynccontextmanager
    async def sides(bench: Bench) -> AsyncIterator[Sides]:
        stream = Stream(bench.channel, bench.served, await bench.wallets(wallets))
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(bench.served.mongo_url)
        async with client:
            inserts = BareInserts(client, stream)
            await inserts.begin()
            events = bench.plan.operations(USAGE_EVENTS)
            yield Sides(stream, inserts, (events, events))

    return sides


@asynccontextmanager
async def _spread(bench: Bench) -> AsyncIterator[Sides]:
    consumes = Consumes(bench.channel, bench.served, await bench.wallets(SPREAD_WALLETS))
    async with (
        echoing(bench.directory) as (target, pid),
        grpc.aio.insecure_channel(target) as channel,
    ):
        echoes = Echoes(channel, consumes.request().ByteSize())
        operations = bench.plan.operations(CONSUMES), bench.plan.operations(ECHOES)
        yield Sides(consumes, echoes, operations, {"echo": pid})


@asynccontextmanager
async def _check(bench: Bench) -> AsyncIterator[Sides]:
    checks = Checks(bench.channel, bench.served, await bench.wallets(SPREAD_WALLETS))
    async with (
        echoing(bench.directory) as (target, pid),
        grpc.aio.insecure_channel(target) as channel,
    ):
        echoes = Echoes(channel, checks.request().ByteSize())
        operations = bench.plan.operations(CHECKS), bench.plan.operations(ECHOES)
        yield Sides(checks, echoes, operations, {"echo": pid})


@asynccontextmanager
async def _holds(bench: Bench) -> AsyncIterator[Sides]:
    users = await bench.wallets(SPREAD_WALLETS)
    holds = HoldPairs(bench.channel, bench.served, users)
    consumes = Consumes(bench.channel, bench.served, users)
    operations = bench.plan.operations(HOLDS), bench.plan.operations(CONSUMES)
    yield Sides(holds, consumes, operations)


@asynccontextmanager
async def _hot(bench: Bench) -> AsyncIterator[Sides]:
    users = await bench.wallets(SPREAD_WALLETS)
    hot = Consumes(bench.channel, bench.served, users[:1])
    spread = Consumes(bench.channel, bench.served, users)
    operations = bench.plan.operations(CONSUMES)
    yield Sides(hot, spread, (operations, operations))


@asynccontextmanager
async def _logs(bench: Bench, count: int) -> AsyncIterator[Logs]:
    async with AsyncMongoClient[dict[str, Any]](bench.served.mongo_url) as client:
        started = time.perf_counter()
        logs = await make_logs(client, count)
        tell(f"{count:,} interactions made in {time.perf_counter() - started:.1f} s")
        yield logs


@asynccontextmanager
async def _deep_page(bench: Bench) -> AsyncIterator[Sides]:
    async with _logs(bench, bench.plan.operations(DEEP_PAGE) * PAGE_ROWS):
        first = Lists(bench.channel, bench.served)
        before = (bench.plan.operations(DEEP_PAGE) - 1) * PAGE_ROWS
        deep = Lists(bench.channel, bench.served, await first.token_after(before))
        yield Sides(deep, first, (PAGES, PAGES))


@asynccontextmanager
async def _list(bench: Bench) -> AsyncIterator[Sides]:
    async with _logs(bench, LOGS) as logs:
        pages = bench.plan.operations(PAGES)
        yield Sides(Lists(bench.channel, bench.served), Finds(logs), (pages, pages))


@asynccontextmanager
async def _get(bench: Bench) -> AsyncIterator[Sides]:
    async with _logs(bench, LOGS) as logs:
        ids, gets = await some_ids(logs, GETS), bench.plan.operations(GETS)
        yield Sides(Gets(bench.channel, bench.served, ids), FindOnes(logs, ids), (gets, gets))


@asynccontextmanager
async def _rest_get(bench: Bench) -> AsyncIterator[Sides]:
    """Before a server that does nothing: what is measured is the gateway, not the database."""
    async with (
        bare(bench.directory, "grpc") as (target, wallets),
        gateway(bench.directory, target) as (address, pid),
        bare(bench.directory, "http") as (json_address, json_pid),
    ):
        ours, baseline = (RestGets(each, bench.served.api_key) for each in (address, json_address))
        operations = bench.plan.operations(REST_GETS), bench.plan.operations(JSON_GETS)
        pids = {"gateway": pid, "wallets": wallets, "starlette": json_pid}
        try:
            yield Sides(ours, baseline, operations, pids)
        finally:
            ours.close()
            baseline.close()


_INSERTS = "usage events through the stream over bare insert_many of their documents"
FIGURES = (
    Figure("usage_40", f"{_INSERTS}, 40 wallets", 0.6, _usage(40)),
    Figure("usage_1000", f"{_INSERTS}, 1,000 wallets", 0.35, _usage(1_000)),
    Figure("usage_50000", f"{_INSERTS}, 50,000 wallets", 0.2, _usage(50_000)),
    Figure("consume_spread", "ConsumeCredits on 1,000 wallets over a bare echo", 0.4, _spread),
    Figure("consume_hot", "ConsumeCredits on one wallet over 1,000 wallets", 0.8, _hot),
    Figure("check_access", "CheckAccess for 1,000 wallets over a bare echo", 0.7, _check),
    Figure("holds", "pairs of AuthorizeUsage and CaptureHold over ConsumeCredits", 0.4, _holds),
    Figure("logs_deep", "page 10,000 of 1,000,000 interactions over the first", 0.8, _deep_page),
    Figure("logs_list", "ListFeatureUsageLogs of 100 rows over a bare find", 0.2, _list),
    Figure("rest_get", "GET through the gateway over bare Starlette JSON", 0.4, _rest_get),
    Figure("logs_get", "GetFeatureUsageLog over a bare find", 0.3, _get),
)


async def take_figure(figure: Figure, plan: Plan) -> dict[str, Any]:
    """Starts what the figure needs, takes it, and returns what is to be said of it."""
    tell(f"{figure.name}: {figure.what}")
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zaaz-bench-")))
        served = await stack.enter_async_context(serving(directory))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(served.target))
        bench = Bench(served, channel, directory, plan)
        sides = await stack.enter_async_context(figure.open(bench))
        pids = {**served.pids, **sides.pids}
        async with recorded(served.pids["server"], plan.recording):
            pairs = await take_pairs(sides, plan.pairs, pids, tell)
        peaks = {role: peak_mebibytes(pid) for role, pid in pids.items()}
    return {
        "name": figure.name,
        "aim": figure.aim,
        **summarize(pairs),
        "wallets_seconds": bench.wallets_seconds,
        "peak_rss_mib": peaks,
    }


def tell(progress: str) -> None:
    """A line for whoever watches."""
    print(f"bench: {progress}", file=sys.stderr, flush=True)
