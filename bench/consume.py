"""ConsumeCredits by many callers, and a bare echo by as many."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc
from zaaz.credits.v1 import credits_service_pb2
from zaaz.credits.v1.credits_service_pb2_grpc import CreditsServiceStub

from bench.echo import METHOD
from bench.pairs import Run, Side, Sides
from bench.processes import Served, echoing
from bench.setting import Bench, Size

CALLERS = 64
SPREAD_WALLETS = 1_000
CONSUMES = Size(3_000, 6_000)
ECHOES = Size(8_000, 20_000)
CONSUMED_MICROS = 1_000


class Consumes:
    """ConsumeCredits on wallets taken at random."""

    def __init__(self, channel: grpc.aio.Channel, served: Served, users: Sequence[str]) -> None:
        self._stub: Any = CreditsServiceStub(channel)
        self._metadata = served.metadata
        self._users = users
        self._random = random.Random(len(users))

    async def prepare(self, operations: int) -> Run:
        """Builds the run's requests."""
        requests = [self.request() for _ in range(operations)]
        return lambda: call_all(self.consume, requests)

    def request(self) -> credits_service_pb2.ConsumeCreditsRequest:
        """One that was not sent before."""
        return credits_service_pb2.ConsumeCreditsRequest(
            request_id=uuid4().hex,
            user_id=self._random.choice(self._users),
            credits_micros=CONSUMED_MICROS,
        )

    def consume(self, request: credits_service_pb2.ConsumeCreditsRequest) -> Awaitable[Any]:
        call: Awaitable[Any] = self._stub.ConsumeCredits(request, metadata=self._metadata)
        return call


class Echoes:
    """The baseline: as many bytes as a ConsumeCreditsRequest has, and back, without metadata."""

    def __init__(self, channel: grpc.aio.Channel, size: int) -> None:
        self._echo: Any = channel.unary_unary(METHOD)
        self._payload = bytes(size)

    async def prepare(self, operations: int) -> Run:
        """Nothing but the count."""
        return lambda: call_all(self._echo, [self._payload] * operations)


async def call_all(
    call: Callable[[Any], Awaitable[object]], requests: Iterable[Any], callers: int = CALLERS
) -> list[float]:
    """Every request once, so many at a time; a failure ends all."""
    waiting = iter(requests)
    latencies: list[float] = []

    async def caller() -> None:
        for request in waiting:
            began = time.perf_counter()
            await call(request)
            latencies.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return latencies


@asynccontextmanager
async def over_echo(bench: Bench, side: Side, operations: Size, size: int) -> AsyncIterator[Sides]:
    """So many operations of a side, over echoes of `size` bytes."""
    async with (
        echoing(bench.directory) as (target, pid),
        grpc.aio.insecure_channel(target) as channel,
    ):
        counts = bench.plan.operations(operations), bench.plan.operations(ECHOES)
        yield Sides(side, Echoes(channel, size), counts, {"echo": pid})


@asynccontextmanager
async def spread(bench: Bench) -> AsyncIterator[Sides]:
    """ConsumeCredits on many wallets over a bare echo."""
    consumes = Consumes(bench.channel, bench.served, await bench.wallets(SPREAD_WALLETS))
    async with over_echo(bench, consumes, CONSUMES, consumes.request().ByteSize()) as sides:
        yield sides


@asynccontextmanager
async def hot(bench: Bench) -> AsyncIterator[Sides]:
    """ConsumeCredits on one wallet over many."""
    users = await bench.wallets(SPREAD_WALLETS)
    one = Consumes(bench.channel, bench.served, users[:1])
    many = Consumes(bench.channel, bench.served, users)
    operations = bench.plan.operations(CONSUMES)
    yield Sides(one, many, (operations, operations))
