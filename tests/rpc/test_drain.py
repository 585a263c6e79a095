"""Going away in order."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from zaaz.wallet.v1.wallet_service_pb2 import WalletDifference

from tests.rpc.edge import echo, failure, reason_of, request, running

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_streams_are_told_and_end_with_ok() -> None:
    async with running(BidiStream=given) as server, asyncio.timeout(20):
        drain = server.edge.drain

        async def until_drain(_: Any, context: Any) -> None:
            await context.write(WalletDifference(field="opened"))
            await drain.started.wait()
            await context.write(WalletDifference(field="drain"))

        handlers["stream"] = until_drain
        call = server.call("BidiStream")
        await call.read()
        stopping = asyncio.create_task(server.server.stop())

        assert (await call.read()).field == "drain"
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        await stopping


@pytest.mark.parametrize("blocked_in", ["handler", "read", "write"])
async def test_a_stream_that_does_not_end_is_ended(blocked_in: str) -> None:
    ended = asyncio.Event()

    async def stay(requests: Any, _: Any) -> Any:
        try:
            yield WalletDifference()
            if blocked_in == "handler":
                await asyncio.Event().wait()
            if blocked_in == "read":
                await anext(requests)
            while True:
                yield WalletDifference(actual="x" * 100_000)
        finally:
            ended.set()

    async with running(BidiStream=stay) as server, asyncio.timeout(20):
        call = server.call("BidiStream")
        await call.read()
        await server.server.stop(stream_grace_seconds=0.05, call_grace_seconds=0.5)

        assert ended.is_set()
        error = await failure(_drained(call))

    assert error.code() is grpc.StatusCode.UNAVAILABLE
    if blocked_in != "write":  # a client that does not read cannot be told
        assert reason_of(error) == "DRAINING"


async def test_while_draining_calls_are_answered_and_new_streams_refused() -> None:
    async with running(Unary=echo, BidiStream=given) as server, asyncio.timeout(20):
        release = asyncio.Event()

        async def stay(_: Any, context: Any) -> None:
            await context.write(WalletDifference())
            await release.wait()

        handlers["stream"] = stay
        first = server.call("BidiStream")
        await first.read()
        stopping = asyncio.create_task(server.server.stop())
        await server.edge.drain.started.wait()

        error = await failure(server.call("BidiStream").read())
        response = await server.call("Unary", request())
        release.set()
        await stopping

    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert response.field == request().user_id


async def test_a_call_that_runs_may_finish() -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    async def work(_: Any, __: Any) -> WalletDifference:
        entered.set()
        await go.wait()
        return WalletDifference(field="done")

    async with running(Unary=work) as server, asyncio.timeout(20):
        call = server.call("Unary", request())
        await entered.wait()
        stopping = asyncio.create_task(server.server.stop())
        await server.edge.drain.started.wait()
        go.set()

        assert (await call).field == "done"
        await stopping


async def test_health_watchers_hear_it_and_their_streams_end_with_ok() -> None:
    async with running(Unary=echo) as server, asyncio.timeout(20):
        health: Any = health_pb2_grpc.HealthStub(server.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        first = await watch.read()
        await server.server.stop()
        second = await watch.read()

        assert (first.status, second.status) == (SERVING, NOT_SERVING)
        assert await watch.read() is grpc.aio.EOF
        assert await watch.code() is grpc.StatusCode.OK


handlers: dict[str, Any] = {}


async def given(requests: Any, context: Any) -> None:
    """Lets a test give the handler after the server, whose drain it needs."""
    await handlers["stream"](requests, context)


async def _drained(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass
