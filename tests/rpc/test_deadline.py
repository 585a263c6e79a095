"""Unary calls end."""

import asyncio
from typing import Any

import grpc
from zaaz.wallet.v1.wallet_service_pb2 import WalletDifference

from server.rpc.deadline import Deadlines
from tests.rpc.edge import Options, echo, failure, metadata_of, reason_of, request, running

SHORT_SECONDS = 0.1


def short() -> Options:
    return Options(edge={"deadlines": Deadlines(SHORT_SECONDS)})


async def hang(_: Any, __: Any) -> WalletDifference:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def test_a_call_without_a_deadline_gets_the_servers() -> None:
    async with running(short(), Unary=hang) as server, asyncio.timeout(10):
        errors = await asyncio.gather(*(failure(server.call("Unary", request())) for _ in range(3)))

    for error in errors:
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert reason_of(error) == "DEADLINE_EXCEEDED"
        assert metadata_of(error) == {"limit_seconds": "0.1"}


async def test_the_servers_limit_starts_anew_with_each_call() -> None:
    async with running(short(), Unary=hang, Public=echo) as server, asyncio.timeout(10):
        await failure(server.call("Unary", request()))
        error = await failure(server.call("Unary", request()))

    assert reason_of(error) == "DEADLINE_EXCEEDED"


async def test_a_callers_longer_deadline_counts() -> None:
    async def outlast(_: Any, __: Any) -> WalletDifference:
        await asyncio.sleep(3 * SHORT_SECONDS)
        return WalletDifference(field="done")

    async with running(short(), Unary=outlast) as server:
        response = await server.call("Unary", request(), timeout=30)

    assert response.field == "done"


async def test_a_callers_own_deadline_cancels_the_handler() -> None:
    async with running(Unary=hang) as server, asyncio.timeout(10):
        error = await failure(server.call("Unary", request(), timeout=0.1))
        event = await server.next_event()

    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert event["code"] == "DEADLINE_EXCEEDED"


async def test_streams_have_no_limit() -> None:
    async def outlast(_: Any, __: Any) -> Any:
        await asyncio.sleep(3 * SHORT_SECONDS)
        yield WalletDifference(field="done")

    async with running(short(), ServerStream=outlast) as server:
        responses = [response async for response in server.call("ServerStream", request())]

    assert [response.field for response in responses] == ["done"]


async def test_a_handlers_own_timeout_is_not_the_calls() -> None:
    async def time_out(_: Any, __: Any) -> WalletDifference:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with running(Unary=time_out) as server:
        error = await failure(server.call("Unary", request()))

    assert reason_of(error) == "INTERNAL"
