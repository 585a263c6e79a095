"""What every contestant is asked, and those that are called over gRPC."""

import os
import random
import time
from asyncio import TaskGroup
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

import grpc
from bson import ObjectId
from pymongo import AsyncMongoClient
from zaaz.credits.v1 import credits_service_pb2
from zaaz.credits.v1.credits_service_pb2_grpc import CreditsServiceStub
from zaaz.wallet.v1 import wallet_service_pb2
from zaaz.wallet.v1.wallet_service_pb2_grpc import WalletServiceStub

from bench.compare.naive import DEBITS, RETRIES_METHOD, WALLETS
from bench.consume import CALLERS, CONSUMED_MICROS, call_all
from bench.processes import started
from bench.setting import Bench
from bench.wallets import make_wallets

CALL_TIMEOUT_SECONDS = 60.0
NAIVE_DATABASE = "naive"


@dataclass(frozen=True, slots=True)
class Load:
    """Debits of CONSUMED_MICROS by CALLERS, until time is up or so many were asked for."""

    users: Sequence[str]
    seconds: float
    most: int


@dataclass(slots=True)
class Outcome:
    """What came of a load. `latencies`: of the debits that were made, in seconds.

    `retries`: transactions that were repeated within the service.
    """

    seconds: float = 0.0
    refused: int = 0
    retries: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    @property
    def done(self) -> int:
        return len(self.latencies)


@dataclass(frozen=True, slots=True)
class Books:
    """What is stored: each wallet's credits, and how many debits there have been in all."""

    balances: Sequence[int]
    debits: int


class Contestant(Protocol):
    """Something that takes credits from wallets."""

    name: str
    pids: Mapping[str, int]

    async def fund(self, count: int, micros: int) -> list[str]:
        """The users of so many new wallets with so much."""

    async def debit(self, load: Load) -> Outcome:
        """Does that, and what was begun to its end."""

    async def books(self, users: Sequence[str]) -> Books:
        """What is stored of these users."""


class Ours:
    """The server."""

    name = "ours, gRPC"

    def __init__(self, bench: Bench) -> None:
        self.pids = bench.served.pids
        self._bench = bench
        self._consume: Any = CreditsServiceStub(bench.channel).ConsumeCredits
        self._get: Any = WalletServiceStub(bench.channel).GetWallet
        self._funding: dict[str, int] = {}

    async def fund(self, count: int, micros: int) -> list[str]:
        users = await make_wallets(self._bench.channel, self._bench.served, count, micros)
        wallets = await self._wallets(users)
        self._funding |= {wallet.user_id: wallet.sequence for wallet in wallets}
        return users

    async def debit(self, load: Load) -> Outcome:
        return await _call(self._consume, load, self._bench.served.metadata)

    async def books(self, users: Sequence[str]) -> Books:
        wallets = await self._wallets(users)
        # Every entry takes the next number of its wallet.
        debits = sum(wallet.sequence - self._funding[wallet.user_id] for wallet in wallets)
        return Books([wallet.credits_micros for wallet in wallets], debits)

    async def _wallets(self, users: Sequence[str]) -> list[Any]:
        wallets: list[Any] = []

        async def get(user_id: str) -> None:
            request = wallet_service_pb2.GetWalletRequest(user_id=user_id)
            answer = await self._get(request, metadata=self._bench.served.metadata)
            wallets.append(answer.wallet)

        await call_all(get, users)
        return wallets


class NaiveService:
    """bench.compare.naive, in a process of its own."""

    name = "naive, gRPC"

    def __init__(self, channel: grpc.aio.Channel, pids: Mapping[str, int], database: Any) -> None:
        self.pids = pids
        self._consume: Any = CreditsServiceStub(channel).ConsumeCredits
        self._count_retries: Any = channel.unary_unary(RETRIES_METHOD)
        self._wallets = database[WALLETS]
        self._debits = database[DEBITS]

    async def fund(self, count: int, micros: int) -> list[str]:
        users = [str(ObjectId()) for _ in range(count)]
        await self._wallets.insert_many([{"user_id": u, "credits_micros": micros} for u in users])
        return users

    async def debit(self, load: Load) -> Outcome:
        outcome = await _call(self._consume, load, ())
        outcome.retries = int(await self._count_retries(b""))
        return outcome

    async def books(self, users: Sequence[str]) -> Books:
        whose = {"user_id": {"$in": list(users)}}
        balances = [row["credits_micros"] async for row in self._wallets.find(whose)]
        return Books(balances, await self._debits.count_documents(whose))


@asynccontextmanager
async def naive(bench: Bench) -> AsyncIterator[NaiveService]:
    """The naive service on the server's mongod."""
    module = ["bench.compare.naive", bench.served.mongo_url, NAIVE_DATABASE]
    log = bench.directory / "naive.log"
    async with (
        started(module, log, os.environ) as (pid, ready),
        grpc.aio.insecure_channel(ready["grpc"]) as channel,
        AsyncMongoClient[dict[str, Any]](bench.served.mongo_url) as client,
    ):
        pids = {**bench.served.pids, "naive": pid}
        del pids["server"]
        yield NaiveService(channel, pids, client[NAIVE_DATABASE])


async def _call(
    consume: Callable[..., Awaitable[Any]], load: Load, metadata: Sequence[tuple[str, str]]
) -> Outcome:
    outcome, left, began = Outcome(), load.most, time.perf_counter()

    async def caller() -> None:
        nonlocal left
        while left > 0 and time.perf_counter() - began < load.seconds:
            left -= 1
            request = credits_service_pb2.ConsumeCreditsRequest(
                request_id=uuid4().hex,
                user_id=random.choice(load.users),
                credits_micros=CONSUMED_MICROS,
            )
            asked = time.perf_counter()
            try:
                await consume(request, metadata=metadata, timeout=CALL_TIMEOUT_SECONDS)
            except grpc.aio.AioRpcError as error:
                _note(outcome, error.code())
            else:
                outcome.latencies.append(time.perf_counter() - asked)

    async with TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(caller())
    outcome.seconds = time.perf_counter() - began
    return outcome


def _note(outcome: Outcome, code: grpc.StatusCode) -> None:
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        outcome.refused += 1
    else:
        outcome.errors[code.name] += 1
