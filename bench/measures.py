"""What is measured in units of its own, beside the ratios: each on a fresh server."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from bench.compare.contest import compare
from bench.gateway import CLIENTS, stream_memory
from bench.memory import EVENTS, memory
from bench.setting import NO_SIZE, Bench, Plan, Size, announce, bench_of
from bench.watch import IDLE_STREAMS, deliveries, idle_memory

Take = Callable[[Bench], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that is watched, with what we aim for in its own unit."""

    name: str
    what: str
    aim: str
    take: Take
    size: Size = NO_SIZE


async def _watch_memory(bench: Bench) -> dict[str, Any]:
    return await idle_memory(bench.served, await bench.wallets(IDLE_STREAMS))


async def _deliveries(bench: Bench) -> dict[str, Any]:
    (user_id,) = await bench.wallets(1)
    return await deliveries(bench.served, bench.channel, user_id)


async def _stream_memory(bench: Bench) -> dict[str, Any]:
    return await stream_memory(bench.served, await bench.wallets(CLIENTS), bench.directory)


MEASURES = (
    Measure(
        "memory",
        "server memory while {size:,} events are streamed, after the first fifth of them",
        "flat: under 1 MiB per 100,000 events",
        memory,
        EVENTS,
    ),
    Measure(
        "watch_memory",
        "server memory of an idle WatchWallet stream, a wallet each",
        "under 40 KiB a stream",
        _watch_memory,
    ),
    Measure(
        "watch_deliveries",
        "changes of one wallet told to 1,000 watchers while it is spent from",
        "none",
        _deliveries,
    ),
    Measure(
        "rest_stream_memory",
        "gateway memory of an idle client of server-sent events, a wallet each",
        "under 60 KiB a client",
        _stream_memory,
    ),
    Measure(
        "compare",
        "debits beside a naive service and medici, 64 callers each, 1,000 wallets and one",
        "none",
        compare,
    ),
)


async def take_measure(measure: Measure, plan: Plan) -> dict[str, Any]:
    """Starts a server, measures, and returns what is to be said of it."""
    what = announce(measure.name, measure.what, measure.size, plan)
    async with bench_of(plan) as bench:
        taken = await measure.take(bench)
    told = {"name": measure.name, "what": what, "scale": plan.told, "aim": measure.aim}
    return {**told, **taken}
