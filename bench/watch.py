"""WatchWallet: what an idle stream costs the server, and how fast a wallet's changes spread."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from typing import Any

import grpc
from zaaz.wallet.v1 import wallet_service_pb2
from zaaz.wallet.v1.wallet_service_pb2_grpc import WalletServiceStub

from bench.consume import Consumes
from bench.machine import Meter, resident_kibibytes
from bench.processes import BenchError, Served

FIRST_STREAMS = 200
IDLE_STREAMS = FIRST_STREAMS + 2_000
WATCHERS = 1_000
STREAMS_A_CHANNEL = 100
"""Far below what a connection may carry; partners have many processes."""
OPEN_TOGETHER = 50
SPENDERS = 8
SPEND_SECONDS = 8.0
SETTLE_SECONDS = 2.0
"""For what opening the streams has left to be let go."""


_numbers = count()


class Watcher:
    """One stream: counts the messages that come."""

    def __init__(self, channel: grpc.aio.Channel, served: Served, user_id: str) -> None:
        self._stub: Any = WalletServiceStub(channel)
        self._request = wallet_service_pb2.WatchWalletRequest(user_id=user_id)
        self._metadata = served.metadata
        self._call: Any = None
        self.messages = 0
        self.sequence = 0

    async def open(self) -> None:
        """Returns once the snapshot has come."""
        self._call = self._stub.WatchWallet(self._request, metadata=self._metadata)
        response = await self._call.read()
        self.sequence = response.snapshot.sequence

    async def count(self) -> None:
        """Counts changes until cancelled. BenchError for one that does not follow the last."""
        while (response := await self._call.read()) is not grpc.aio.EOF:
            if response.HasField("change"):
                if response.change.first_sequence != self.sequence + 1:
                    raise BenchError(f"a change at {self.sequence} left something out")
                self.sequence = response.change.sequence
                self.messages += 1

    def close(self) -> None:
        if self._call is not None:
            self._call.cancel()


async def idle_memory(served: Served, users: Sequence[str]) -> dict[str, Any]:
    """KiB of resident memory that the server has more for each idle stream, a wallet each."""
    pid = served.pids["server"]
    meter = Meter(served.pids)
    # What the first streams cost once and for all is not counted.
    first, others = users[:FIRST_STREAMS], users[FIRST_STREAMS:]
    async with watching(served, first):
        await asyncio.sleep(SETTLE_SECONDS)
        before = resident_kibibytes(pid)
        async with watching(served, others):
            await asyncio.sleep(SETTLE_SECONDS)
            after, costs = resident_kibibytes(pid), meter.read()
    return {
        "value": round((after - before) / len(others), 1),
        "unit": "KiB a stream",
        "streams": len(others),
        "resident_mib": [round(before / 1_024, 1), round(after / 1_024, 1)],
        **costs,
    }


async def deliveries(served: Served, channel: grpc.aio.Channel, user_id: str) -> dict[str, Any]:
    """Messages a second to WATCHERS of one wallet that is spent from without a pause."""
    consumes = Consumes(channel, served, [user_id])
    async with watching(served, [user_id] * WATCHERS) as watchers:
        counting = [asyncio.create_task(watcher.count()) for watcher in watchers]
        meter, began = Meter(served.pids), time.perf_counter()
        transactions = await _spend(consumes)
        seconds = time.perf_counter() - began
        messages, costs = sum(watcher.messages for watcher in watchers), meter.read()
        await _end(counting)
    return {
        "value": round(messages / seconds),
        "unit": "messages/s",
        "watchers": WATCHERS,
        "transactions_per_second": round(transactions / seconds),
        "changes_per_second": round(messages / seconds / WATCHERS, 1),
        **costs,
    }


async def _spend(consumes: Consumes) -> int:
    until = time.perf_counter() + SPEND_SECONDS
    made = 0

    async def spender() -> None:
        nonlocal made
        while time.perf_counter() < until:
            await consumes.consume(consumes.request())
            made += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(SPENDERS):
            tasks.create_task(spender())
    return made


async def _end(counting: Sequence[asyncio.Task[None]]) -> None:
    for task in counting:
        task.cancel()
    for task in counting:
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def watching(served: Served, users: Sequence[str]) -> AsyncIterator[list[Watcher]]:
    """An open stream for each of the users."""
    async with AsyncExitStack() as stack:
        watchers: list[Watcher] = []
        for start in range(0, len(users), STREAMS_A_CHANNEL):
            # Channels to one target share a connection unless their options differ.
            options = (("bench.number", next(_numbers)),)
            channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(served.target, options=options)
            )
            some = users[start : start + STREAMS_A_CHANNEL]
            watchers += [Watcher(channel, served, user_id) for user_id in some]
        try:
            for start in range(0, len(watchers), OPEN_TOGETHER):
                # gRPC core turns calls away at random where a thousand come at once.
                some_of_them = watchers[start : start + OPEN_TOGETHER]
                await asyncio.gather(*(watcher.open() for watcher in some_of_them))
            yield watchers
        finally:
            for watcher in watchers:
                watcher.close()
