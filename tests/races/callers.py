"""Callers that run at once, and another's transaction that stands in their way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from bson import ObjectId

from tests.conftest import MongoClient
from tests.serving import Served, error_info, reason_of

MAX_TRIES = 100
"""A caller who is told CONTENTION so often has been starved."""

Call = Callable[[], Awaitable[Any]]


async def outcome(call: Awaitable[Any]) -> Any:
    """The call's answer, or the reason of its refusal."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return reason_of(error)


async def outcomes(*calls: Awaitable[Any]) -> list[Any]:
    """The same of calls that run at once."""
    return list(await asyncio.gather(*map(outcome, calls)))


async def persist(call: Call) -> Any:
    """The call's outcome once it is not CONTENTION; each try is the same call."""
    for _ in range(MAX_TRIES):
        answer = await outcome(call())
        if answer != "CONTENTION" and "CONTENTION" not in event_outcomes(answer):
            return answer
    raise AssertionError("starved by CONTENTION")


def event_outcomes(answer: Any) -> list[str]:
    """For a batch's answer, the reason of each result ("" for one that worked)."""
    results = getattr(answer, "results", ())
    return [str(error_info(_status(result)).reason) for result in results]


def _status(result: Any) -> Any:
    error = result.error
    return getattr(error, "error", error)


@asynccontextmanager
async def contended(client: MongoClient, database: str, user_id: str) -> AsyncIterator[None]:
    """While the block runs, another's open transaction has written the user's wallet."""
    wallets = client[database]["user_wallets"]
    async with client.start_session() as session:
        await session.start_transaction()
        query = {"user_id": ObjectId(user_id)}
        await wallets.update_one(query, {"$inc": {"version": 1}}, session=session)
        try:
            yield
        finally:
            await session.abort_transaction()


async def verified(served: Served, user_id: str) -> Any:
    """The user's wallet, which is sound."""
    await served.assert_sound(user_id)
    return await served.wallet(user_id)
