"""What is measured in units of its own, beside the ratios: each on a fresh server."""

import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from bench.gateway import CLIENTS, stream_memory
from bench.processes import Served, serving
from bench.wallets import make_wallets
from bench.watch import IDLE_STREAMS, deliveries, idle_memory

Take = Callable[[Served, grpc.aio.Channel], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that is watched, with what we aim for in its own unit."""

    name: str
    what: str
    aim: str
    take: Take


async def _memory(served: Served, channel: grpc.aio.Channel) -> dict[str, Any]:
    return await idle_memory(served, await make_wallets(channel, served, IDLE_STREAMS))


async def _deliveries(served: Served, channel: grpc.aio.Channel) -> dict[str, Any]:
    (user_id,) = await make_wallets(channel, served, 1)
    return await deliveries(served, channel, user_id)


async def _stream_memory(served: Served, channel: grpc.aio.Channel) -> dict[str, Any]:
    users = await make_wallets(channel, served, CLIENTS)
    with tempfile.TemporaryDirectory(prefix="zaaz-bench-") as directory:
        return await stream_memory(served, users, Path(directory))


MEASURES = (
    Measure(
        "watch_memory",
        "server memory of an idle WatchWallet stream, a wallet each",
        "under 40 KiB a stream",
        _memory,
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
)


async def take_measure(measure: Measure) -> dict[str, Any]:
    """Starts a server, measures, and returns what is to be said of it."""
    with tempfile.TemporaryDirectory(prefix="zaaz-bench-") as directory:
        async with (
            serving(Path(directory)) as served,
            grpc.aio.insecure_channel(served.target) as channel,
        ):
            taken = await measure.take(served, channel)
    return {"name": measure.name, "what": measure.what, "aim": measure.aim, **taken}
