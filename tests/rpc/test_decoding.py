"""Bytes that are no message, and too many of them."""

from typing import Any

import grpc
import pytest
from zaaz.wallet.v1.wallet_service_pb2 import WalletDifference

from server.rpc.decoding import MAX_MESSAGE_BYTES, TRANSPORT_MESSAGE_BYTES
from tests.rpc.edge import Running, echo, failure, metadata_of, reason_of, request, running

INVALID_UTF8 = b"\x0a\x02\xff\xfe"
NAME = "zaaz.wallet.v1.GetWalletRequest"
UNLIMITED = (("grpc.max_send_message_length", -1),)


async def generate(requests: Any, _: Any) -> Any:
    async for message in requests:
        yield WalletDifference(field=message.user_id)


async def respond(_: Any, __: Any) -> Any:
    yield WalletDifference()


async def read_failure(server: Running, method: str, raw: bytes) -> grpc.aio.AioRpcError:
    if method == "Unary":
        return await failure(server.call(method, raw))
    if method == "ServerStream":
        return await failure(server.call(method, raw).read())
    call = server.call(method)
    await call.write(request())
    await call.read()
    await call.write(raw)
    return await failure(call.read())


@pytest.mark.parametrize("raw", [b"\xff\xff\xff", INVALID_UTF8, b"\x0a\x18short"])
@pytest.mark.parametrize("method", ["Unary", "ServerStream", "BidiStream"])
async def test_bytes_that_are_no_message(method: str, raw: bytes) -> None:
    async with running(Unary=echo, ServerStream=respond, BidiStream=generate) as server:
        error = await read_failure(server, method, raw)

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (reason_of(error), metadata_of(error)) == ("MALFORMED_MESSAGE", {"message": NAME})


@pytest.mark.parametrize("method", ["Unary", "BidiStream"])
async def test_a_message_above_the_bound(method: str) -> None:
    size = MAX_MESSAGE_BYTES + 1
    async with running(Unary=echo, BidiStream=generate) as server:
        error = await read_failure(server, method, bytes(size))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason_of(error) == "MESSAGE_TOO_LARGE"
    assert metadata_of(error) == {"size_bytes": str(size), "limit_bytes": str(MAX_MESSAGE_BYTES)}


async def test_a_message_at_the_bound_is_decoded() -> None:
    message = request()
    padding = MAX_MESSAGE_BYTES - message.ByteSize() - 5
    # An unknown field of length-delimited bytes: decoders keep and ignore it.
    raw = message.SerializeToString() + b"\xfa\x01" + _varint(padding - 1) + bytes(padding - 1)
    async with running(Unary=echo) as server:
        response = await server.call("Unary", raw[:MAX_MESSAGE_BYTES])

    assert len(raw) == MAX_MESSAGE_BYTES
    assert response.field == message.user_id


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
async def test_the_transport_refuses_what_is_far_too_large(compression: Any) -> None:
    async with running(Unary=echo) as server:
        target = str(server.address)
        async with grpc.aio.insecure_channel(target, options=UNLIMITED) as channel:
            raw = bytes(TRANSPORT_MESSAGE_BYTES + 1)
            method: Any = channel.unary_unary("/testing.v1.KindsService/Unary")
            error = await failure(method(raw, compression=compression))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
