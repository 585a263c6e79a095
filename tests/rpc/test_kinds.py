"""All four kinds of RPC, by generator and by coroutine, when all is well and when it is not."""

import asyncio
from typing import Any

import grpc
import pytest
from zaaz.wallet.v1.wallet_service_pb2 import WalletDifference

from server.kernel.errors import DomainError, Reason
from server.kernel.principal import current_principal
from tests.rpc.edge import (
    SERVICE,
    USER,
    Options,
    echo,
    failure,
    metadata_of,
    reason_of,
    request,
    running,
    status_of,
)

SECRET = "the database's password is hunter2"


async def generate(requests: Any, _: Any) -> Any:
    async for message in requests:
        yield WalletDifference(field=message.user_id)


async def write(_: Any, context: Any) -> None:
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(WalletDifference(field=message.user_id))


async def generate_three(message: Any, _: Any) -> Any:
    for sequence in range(3):
        yield WalletDifference(sequence=sequence, field=message.user_id)


async def write_three(message: Any, context: Any) -> None:
    for sequence in range(3):
        await context.write(WalletDifference(sequence=sequence, field=message.user_id))


async def count(requests: Any, _: Any) -> WalletDifference:
    return WalletDifference(sequence=len([message async for message in requests]))


async def received(call: Any) -> list[Any]:
    return [message async for message in call]


async def test_unary() -> None:
    async with running(Unary=echo) as server:
        assert (await server.call("Unary", request())).field == USER


@pytest.mark.parametrize("handler", [generate_three, write_three])
async def test_server_stream(handler: Any) -> None:
    async with running(ServerStream=handler) as server:
        responses = await received(server.call("ServerStream", request()))

    assert [response.sequence for response in responses] == [0, 1, 2]


async def test_client_stream() -> None:
    async with running(ClientStream=count) as server:
        response = await server.call("ClientStream", iter([request()] * 5))

    assert response.sequence == 5


@pytest.mark.parametrize("handler", [generate, write])
async def test_bidi_stream(handler: Any) -> None:
    async with running(BidiStream=handler) as server:
        call = server.call("BidiStream")
        for user_id in (USER, USER[::-1]):
            await call.write(request(user_id))
            assert (await call.read()).field == user_id
        await call.done_writing()

        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("handler", [generate, write])
async def test_a_streams_messages_are_validated(handler: Any) -> None:
    async with running(BidiStream=handler) as server:
        call = server.call("BidiStream")
        await call.write(request())
        await call.read()
        await call.write(request("no id"))
        error = await failure(call.read())

    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_ID")


async def test_a_refusal_is_a_status() -> None:
    async def refuse(_: Any, __: Any) -> WalletDifference:
        raise DomainError(Reason.INSUFFICIENT_CREDITS, "30 short", {"shortfall_micros": 30})

    async with running(Unary=refuse) as server:
        error = await failure(server.call("Unary", request()))

    assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "30 short")
    assert reason_of(error) == "INSUFFICIENT_CREDITS"
    assert metadata_of(error) == {"shortfall_micros": "30"}


async def test_a_refusal_follows_the_responses_before_it() -> None:
    async def respond_then_refuse(_: Any, context: Any) -> Any:
        context.set_trailing_metadata((("x-node", "a"),))
        yield WalletDifference(sequence=1)
        raise DomainError(Reason.WRITER_FENCED, "another stream has opened the writer")

    async with running(BidiStream=respond_then_refuse) as server:
        call = server.call("BidiStream")
        first = await call.read()
        error = await failure(call.read())

    assert first.sequence == 1
    assert reason_of(error) == "WRITER_FENCED"
    assert dict(error.trailing_metadata() or ())["x-node"] == "a"


@pytest.mark.parametrize("method", ["Unary", "ServerStream", "ClientStream", "BidiStream"])
async def test_a_defect_keeps_its_text_to_itself(method: str, caplog: Any) -> None:
    async def fail(_: Any, __: Any) -> Any:
        raise RuntimeError(SECRET)

    async def fail_generating(_: Any, __: Any) -> Any:
        if current_principal().is_admin:
            yield
        raise RuntimeError(SECRET)

    streams = method in {"ServerStream", "BidiStream"}
    behaviours: Any = {method: fail_generating if streams else fail}
    arguments: Any = {"BidiStream": (), "ClientStream": (iter([request()]),)}
    async with running(**behaviours) as server:
        call = server.call(method, *arguments.get(method, (request(),)))
        error = await failure(_result(call, streams))
        event = await server.next_event()

    assert error.code() is grpc.StatusCode.INTERNAL
    assert reason_of(error) == "INTERNAL"
    assert SECRET not in f"{error.details()}{status_of(error)}{error.debug_error_string()}"
    error_id = metadata_of(error)["error_id"]
    assert event["error_id"] == error_id
    (record,) = [record for record in caplog.records if record.name == "server.rpc.errors"]
    assert record.fields["error_id"] == error_id
    assert SECRET in caplog.text


async def test_a_response_that_cannot_be_encoded_is_a_defect() -> None:
    async def wrong(_: Any, __: Any) -> Any:
        return SECRET

    async with running(Unary=wrong) as server:
        error = await failure(server.call("Unary", request()))

    assert reason_of(error) == "INTERNAL"
    assert SECRET not in f"{error.details()}"


async def test_a_known_failure_is_translated() -> None:
    def translate(error: BaseException) -> DomainError | None:
        away = DomainError(Reason.DEPENDENCY_UNAVAILABLE, "away", {"dependency": "mongodb"})
        return away if isinstance(error, ConnectionError) else None

    async def reach(_: Any, __: Any) -> WalletDifference:
        raise ConnectionError(SECRET)

    async with running(Options(translate=translate), Unary=reach) as server:
        error = await failure(server.call("Unary", request()))

    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert (reason_of(error), error.details()) == ("DEPENDENCY_UNAVAILABLE", "away")


async def test_a_handlers_own_abort_passes() -> None:
    async def abort(_: Any, context: Any) -> Any:
        return await context.abort(grpc.StatusCode.DATA_LOSS, "gone")

    async with running(Unary=abort) as server:
        error = await failure(server.call("Unary", request()))
        event = await server.next_event()

    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "gone")
    assert event["code"] == "DATA_LOSS"


@pytest.mark.parametrize("method", ["Unary", "BidiStream"])
async def test_a_cancelled_call_is_cancelled_in_its_handler(method: str) -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(_: Any, __: Any) -> Any:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    behaviours: Any = {method: wait}
    async with running(**behaviours) as server, asyncio.timeout(10):
        call = server.call(method, *([request()] if method == "Unary" else []))
        await entered.wait()
        call.cancel()
        await cancelled.wait()
        event = await server.next_event()

    assert event["code"] == "CANCELLED"


async def test_a_method_that_nobody_wrote_is_unimplemented() -> None:
    def stub(_: Any, context: Any) -> None:
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        raise NotImplementedError

    async with running(Unary=stub) as server:
        error = await failure(server.call("Unary", request()))

    assert (error.code(), reason_of(error)) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "METHOD_UNIMPLEMENTED",
    )
    assert metadata_of(error) == {"method": f"/{SERVICE}/Unary"}


@pytest.mark.parametrize("kind", ["unary_unary", "stream_stream"])
async def test_an_unknown_method_is_unimplemented(kind: str) -> None:
    async with running(Unary=echo) as server:
        call = getattr(server.channel, kind)("/no.such.Service/Method")
        arguments = (b"",) if kind == "unary_unary" else ()
        pending = call(*arguments)
        error = await failure(pending if kind == "unary_unary" else pending.read())
        event = await server.next_event()

    assert reason_of(error) == "METHOD_UNIMPLEMENTED"
    assert event["method"] == "/unknown/unknown"


async def _result(call: Any, streams: bool) -> Any:
    return await received(call) if streams else await call
