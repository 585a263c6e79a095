"""Who may call."""

import asyncio
from contextlib import suppress
from typing import Any

import grpc
import pytest
from zaaz.wallet.v1.wallet_service_pb2 import WalletDifference

from server.kernel.principal import current_principal
from server.rpc.access import rule_of
from server.rpc.drain import Drain
from server.rpc.edge import Edge, EdgeHandlers
from server.rpc.server import CannotServeError, RpcServer
from server.rpc.telemetry import Telemetry
from tests.rpc.edge import (
    LOOPBACK,
    SERVICE,
    Keys,
    adding,
    echo,
    failure,
    metadata_of,
    reason_of,
    request,
    running,
)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "CREDENTIALS_MISSING"),
        ((("authorization", "Basic eA=="),), "CREDENTIALS_MISSING"),
        (bearer(""), "CREDENTIALS_INVALID"),
        (bearer("wrong"), "CREDENTIALS_INVALID"),
        (bearer("x" * 5000), "CREDENTIALS_INVALID"),
        (bearer("expired"), "API_KEY_EXPIRED"),
    ],
)
@pytest.mark.parametrize("method", ["Unary", "BidiStream"])
async def test_without_a_good_key_nobody_gets_in(
    metadata: tuple[tuple[str, str], ...], reason: str, method: str
) -> None:
    async with running(Unary=echo, BidiStream=never) as server:
        call = server.call(method, *_one(method), metadata=metadata)

        error = await failure(call.read() if method == "BidiStream" else call)

    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(error) == reason


@pytest.mark.parametrize("token", ["", "x" * 513])
async def test_what_cannot_be_a_key_is_not_looked_up(token: str) -> None:
    async with running(Unary=echo) as server:
        await failure(server.call("Unary", request(), metadata=bearer(token)))

    assert server.keys.asked == []


async def test_a_key_needs_the_methods_scope() -> None:
    async with running(Unary=echo) as server:
        error = await failure(server.call("Unary", request(), metadata=bearer("scopeless")))

    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert (reason_of(error), metadata_of(error)) == ("SCOPE_MISSING", {"scopes": "wallet.read"})


async def test_admin_passes_every_rule() -> None:
    async with running(Unary=echo) as server:
        response = await server.call("Unary", request(), metadata=bearer("admin"))

    assert response.field == request().user_id


async def test_a_public_method_takes_no_key() -> None:
    async with running(Public=echo) as server:
        response = await server.call("Public", request(), metadata=())

    assert response.field == request().user_id


@pytest.mark.parametrize("raw", [b"\xff\xff", b"\x0a\x01x", bytes(5_000_000)])
async def test_permission_comes_before_anything_about_the_request(raw: bytes) -> None:
    async with running(Unary=echo) as server:
        error = await failure(server.call("Unary", raw, metadata=bearer("scopeless")))

    assert reason_of(error) == "SCOPE_MISSING"


async def test_a_method_without_a_rule_is_closed_even_to_admins() -> None:
    edge = Edge(Keys(), lambda _: None, Drain(), Telemetry(None))
    handlers = EdgeHandlers(edge)
    adding(Closed=echo)(object(), handlers)
    server = grpc.aio.server(handlers=(handlers,))
    port = server.add_insecure_port(str(LOOPBACK))
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        closed: Any = channel.unary_unary(f"/{SERVICE}/Closed")
        error = await failure(closed(b"", metadata=bearer("admin")))
    await server.stop(None)

    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert reason_of(error) == "METHOD_CLOSED"
    assert metadata_of(error) == {"method": f"/{SERVICE}/Closed"}


async def test_a_server_with_a_closed_method_does_not_start() -> None:
    server = RpcServer(LOOPBACK, Edge(Keys(), lambda _: None, Drain(), Telemetry(None)))

    with pytest.raises(CannotServeError, match="KindsService/Closed"):
        server.add(adding(Unary=echo, Closed=echo), object())


def test_a_method_that_no_contract_has_is_closed() -> None:
    assert rule_of("/no.such.Service/Method").is_closed


async def test_every_call_has_its_own_principal() -> None:
    both = asyncio.Barrier(2)

    async def whoami(_: Any, __: Any) -> WalletDifference:
        async with asyncio.timeout(10):
            await both.wait()
        return WalletDifference(field=current_principal().client_id)

    async with running(Unary=whoami) as server:
        calls = [server.call("Unary", request(), metadata=bearer(key)) for key in ("good", "admin")]
        first, second = await asyncio.gather(*calls)

    assert (first.field, second.field) == ("client-of-good", "client-of-admin")


@pytest.mark.parametrize("waits_in", ["handler", "read", "write"])
async def test_revocation_ends_an_open_stream(waits_in: str) -> None:
    ended = asyncio.Event()

    async def stream(requests: Any, context: Any) -> Any:
        try:
            yield WalletDifference()
            if waits_in == "handler":
                await asyncio.Event().wait()
            async for _ in requests:
                pass
            while waits_in == "write":
                yield WalletDifference(actual="x" * 100_000)
        finally:
            ended.set()

    async with running(BidiStream=stream) as server, asyncio.timeout(20):
        call = server.call("BidiStream")
        await call.read()
        if waits_in == "write":
            await call.done_writing()
            await call.read()
        server.keys.revoke()
        await ended.wait()
        error = await failure(_drained(call))

    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(error) == "API_KEY_REVOKED"
    assert server.keys.watching == []


@pytest.mark.parametrize("writes", [0, 1])
async def test_revocation_ends_a_stream_in_the_middle_of_a_write(writes: int) -> None:
    async def stream(_: Any, context: Any) -> None:
        for _ in range(writes):
            await context.write(WalletDifference())
        # Once the next one is on its way.
        asyncio.get_running_loop().call_soon(server.keys.revoke)
        await context.write(WalletDifference())
        await asyncio.Event().wait()

    async with running(BidiStream=stream) as server, asyncio.timeout(20):
        error = await failure(_drained(server.call("BidiStream")))

    assert reason_of(error) == "API_KEY_REVOKED"


async def test_revocation_ends_a_stream_that_lost_the_cancellation() -> None:
    waits, swallowed = asyncio.Event(), asyncio.Event()

    async def stream(requests: Any, context: Any) -> Any:
        yield WalletDifference()
        waits.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        swallowed.set()
        async for _ in requests:
            pass

    async with running(BidiStream=stream) as server, asyncio.timeout(20):
        call = server.call("BidiStream")
        await call.read()
        await waits.wait()
        server.keys.revoke()
        await swallowed.wait()
        error = await failure(_drained(call))

    assert reason_of(error) == "API_KEY_REVOKED"


async def test_a_stream_that_ended_is_watched_no_more() -> None:
    async def stream(_: Any, __: Any) -> Any:
        yield WalletDifference()

    async with running(BidiStream=stream) as server:
        call = server.call("BidiStream")
        await call.done_writing()
        await _drained(call)

        assert await call.code() is grpc.StatusCode.OK
        assert server.keys.watching == []


async def never(_: Any, __: Any) -> Any:
    yield await asyncio.Event().wait()


async def _drained(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


def _one(method: str) -> tuple[Any, ...]:
    return (request(),) if method == "Unary" else ()
