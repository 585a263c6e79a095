"""CheckAccess over a bare echo, and holds placed and captured over plain ConsumeCredits."""

import random
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc
from zaaz.credits.v1 import credits_process_service_pb2 as pb
from zaaz.credits.v1.credits_process_service_pb2_grpc import CreditsProcessServiceStub

from bench.consume import CONSUMES, SPREAD_WALLETS, Consumes, call_all, over_echo
from bench.pairs import Run, Sides
from bench.processes import BenchError, Served
from bench.setting import Bench, Size

MODEL = "openai/gpt-4o-mini"
INPUT_TOKENS, OUTPUT_TOKENS = 1_000, 500
CHECKS = Size(6_000, 12_000)
HOLDS = Size(1_500, 3_000)


class Checks:
    """CheckAccess for wallets taken at random."""

    def __init__(self, channel: grpc.aio.Channel, served: Served, users: Sequence[str]) -> None:
        self._stub: Any = CreditsProcessServiceStub(channel)
        self._metadata = served.metadata
        self._users = users
        self._random = random.Random(len(users))

    async def prepare(self, operations: int) -> Run:
        """Builds the run's requests; that one of them is allowed is looked at first."""
        requests = [self.request() for _ in range(operations)]
        if not (await self.check(requests[0])).allowed:
            raise BenchError("a user who can pay is not allowed")
        return lambda: call_all(self.check, requests)

    def request(self) -> pb.CheckAccessRequest:
        """A use that the user can pay for."""
        return pb.CheckAccessRequest(
            user_id=self._random.choice(self._users),
            ai_model=MODEL,
            max_input_tokens=INPUT_TOKENS,
            max_output_tokens=OUTPUT_TOKENS,
        )

    def check(self, request: pb.CheckAccessRequest) -> Awaitable[Any]:
        """The answer."""
        call: Awaitable[Any] = self._stub.CheckAccess(request, metadata=self._metadata)
        return call


class HoldPairs:
    """AuthorizeUsage, then CaptureHold of half of it: one operation."""

    def __init__(self, channel: grpc.aio.Channel, served: Served, users: Sequence[str]) -> None:
        self._stub: Any = CreditsProcessServiceStub(channel)
        self._metadata = served.metadata
        self._users = users
        self._random = random.Random(len(users))

    async def prepare(self, operations: int) -> Run:
        """Builds the authorizations; what captures them knows their holds only then."""
        requests = [self._authorization() for _ in range(operations)]
        return lambda: call_all(self._hold, requests)

    async def _hold(self, request: pb.AuthorizeUsageRequest) -> None:
        answer = await self._stub.AuthorizeUsage(request, metadata=self._metadata)
        if not answer.allowed:
            raise BenchError("a user who can pay is not allowed")
        used = pb.HoldUsage(input_tokens=INPUT_TOKENS // 2, output_tokens=OUTPUT_TOKENS // 2)
        capture = pb.CaptureHoldRequest(request_id=uuid4().hex, hold_id=answer.hold.id, usage=used)
        await self._stub.CaptureHold(capture, metadata=self._metadata)

    def _authorization(self) -> pb.AuthorizeUsageRequest:
        return pb.AuthorizeUsageRequest(
            request_id=uuid4().hex,
            user_id=self._random.choice(self._users),
            ai_model=MODEL,
            max_input_tokens=INPUT_TOKENS,
            max_output_tokens=OUTPUT_TOKENS,
        )


@asynccontextmanager
async def check(bench: Bench) -> AsyncIterator[Sides]:
    """CheckAccess over a bare echo."""
    checks = Checks(bench.channel, bench.served, await bench.wallets(SPREAD_WALLETS))
    async with over_echo(bench, checks, CHECKS, checks.request().ByteSize()) as sides:
        yield sides


@asynccontextmanager
async def holds(bench: Bench) -> AsyncIterator[Sides]:
    """Pairs of AuthorizeUsage and CaptureHold over ConsumeCredits."""
    users = await bench.wallets(SPREAD_WALLETS)
    pairs = HoldPairs(bench.channel, bench.served, users)
    consumes = Consumes(bench.channel, bench.served, users)
    yield Sides(pairs, consumes, (bench.plan.operations(HOLDS), bench.plan.operations(CONSUMES)))
