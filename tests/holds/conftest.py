"""Calls of CreditsProcessService that most tests here make."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from zaaz.credits.v1 import credits_process_service_pb2 as pb
from zaaz.ledger.v1 import hold_pb2

from tests.serving import MODEL, Served, new_key, serving

RELEASE = hold_pb2.DISCONNECT_POLICY_RELEASE
CAPTURE_REPORTED = hold_pb2.DISCONNECT_POLICY_CAPTURE_REPORTED
CAPTURE_ALL = hold_pb2.DISCONNECT_POLICY_CAPTURE_ALL

HELD_MICROS = 540_000
"""What 1,000 tokens in and 500 out of MODEL come to, which `Holder.place` asks for."""


class Holder:
    """A partner that places and ends holds."""

    def __init__(self, served: Served) -> None:
        self.served = served

    async def authorize(self, user_id: str, **fields: Any) -> pb.AuthorizeUsageResponse:
        values = {
            "request_id": new_key(),
            "ai_model": MODEL,
            "max_input_tokens": 1_000,
            "max_output_tokens": 500,
            **fields,
        }
        seconds = values.pop("ttl_seconds", None)
        request = pb.AuthorizeUsageRequest(user_id=user_id, **values)
        if seconds is not None:
            request.ttl.FromTimedelta(timedelta(seconds=seconds))
        answer: pb.AuthorizeUsageResponse = await self.served.process.AuthorizeUsage(request)
        return answer

    async def place(self, user_id: str, **fields: Any) -> hold_pb2.Hold:
        """A hold of HELD_MICROS."""
        answer = await self.authorize(user_id, **fields)
        assert answer.allowed, answer.denials
        return answer.hold

    async def extend(self, hold_id: str, **fields: Any) -> pb.ExtendHoldResponse:
        seconds = fields.pop("ttl_seconds", None)
        request = pb.ExtendHoldRequest(hold_id=hold_id, **{"request_id": new_key(), **fields})
        if seconds is not None:
            request.ttl.FromTimedelta(timedelta(seconds=seconds))
        answer: pb.ExtendHoldResponse = await self.served.process.ExtendHold(request)
        return answer

    async def capture(
        self, hold_id: str, tokens: tuple[int, int] | None = None, **fields: Any
    ) -> pb.CaptureHoldResponse:
        request = pb.CaptureHoldRequest(hold_id=hold_id, **{"request_id": new_key(), **fields})
        if tokens is not None:
            request.usage.CopyFrom(used(*tokens))
        answer: pb.CaptureHoldResponse = await self.served.process.CaptureHold(request)
        return answer

    async def release(self, hold_id: str, **fields: Any) -> pb.ReleaseHoldResponse:
        request = pb.ReleaseHoldRequest(hold_id=hold_id, **{"request_id": new_key(), **fields})
        answer: pb.ReleaseHoldResponse = await self.served.process.ReleaseHold(request)
        return answer

    async def get(self, hold_id: str) -> hold_pb2.Hold:
        answer: pb.GetHoldResponse = await self.served.process.GetHold(
            pb.GetHoldRequest(id=hold_id)
        )
        return answer.hold


def used(input_tokens: int, output_tokens: int) -> pb.HoldUsage:
    return pb.HoldUsage(input_tokens=input_tokens, output_tokens=output_tokens)


@pytest.fixture
def holder(served: Served) -> Holder:
    return Holder(served)


@pytest.fixture
def timed(clocked: Served) -> Holder:
    """The same on a server whose clock the test moves."""
    return Holder(clocked)


@pytest.fixture
async def newcomer(served: Served, mongo_url: str) -> AsyncIterator[Holder]:
    """A server that has no wallet in memory yet, on the same database."""
    async with serving(mongo_url, "test_served") as other:
        yield Holder(other)
