"""How much at once."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from zaaz.wallet.v1.wallet_service_pb2 import WalletDifference

from server.rpc.load import Load
from tests.rpc.edge import Options, failure, metadata_of, reason_of, request, running


@pytest.mark.parametrize(("method", "queue"), [("Unary", "calls"), ("ServerStream", "streams")])
async def test_more_than_the_limit_is_refused_until_there_is_room(method: str, queue: str) -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    async def unary(_: Any, __: Any) -> Any:
        entered.set()
        await go.wait()
        return WalletDifference()

    async def stream(_: Any, context: Any) -> None:
        entered.set()
        await go.wait()
        await context.write(WalletDifference())

    options = Options(edge={queue: Load(queue, 1)})
    async with running(options, Unary=unary, ServerStream=stream) as server, asyncio.timeout(10):
        first = server.call(method, request())
        await entered.wait()
        error = await failure(_result(server.call(method, request())))
        healthy: Any = health_pb2_grpc.HealthStub(server.channel)
        health = await healthy.Check(health_pb2.HealthCheckRequest())
        go.set()
        await _result(first)
        await _result(server.call(method, request()))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (reason_of(error), metadata_of(error)) == ("OVERLOADED", {"queue": queue, "limit": "1"})
    assert health.status == health_pb2.HealthCheckResponse.SERVING


async def _result(call: Any) -> Any:
    return await (call.read() if hasattr(call, "read") else call)
