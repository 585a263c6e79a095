"""Who may call: every method of the contract, with every kind of key that will not do."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from zaaz.auth.v1 import auth_service_pb2
from zaaz.common.v1 import access_pb2
from zaaz.credits.v1 import usage_service_pb2 as usage_pb

from tests.ledger.calls import Ingest, at, refused, soon
from tests.serving import Served, connected, make_key, new_key, reason_of, usage_event

BEYOND_ACCESS = ("FIELD_INVALID", "MALFORMED_ID", "STREAM_NOT_OPEN", "FRAME_SIZE_INVALID")
"""What an empty request is refused for by those who may call."""

SERVICES = (
    "zaaz.auth.v1.AuthService",
    "zaaz.credits.v1.CreditsService",
    "zaaz.credits.v1.UsageService",
    "zaaz.wallet.v1.WalletService",
)
SCOPES = frozenset(
    {
        "wallet.read",
        "wallet.write",
        "credits.read",
        "credits.write",
        "usage.read",
        "usage.write",
        "admin",
    }
)


def methods() -> list[str]:
    found = []
    for service in SERVICES:
        descriptor = descriptor_pool.Default().FindServiceByName(service)
        found += [method.full_name for method in descriptor.methods]
    return found


def allowed(method: str) -> frozenset[str]:
    options = descriptor_pool.Default().FindMethodByName(method).GetOptions()
    return frozenset(options.Extensions[access_pb2.access].scopes)


async def call(target: str, method: str, *metadata: tuple[str, str]) -> Message:
    """Calls the method with an empty message, as any client could. Raises its error."""
    descriptor = descriptor_pool.Default().FindMethodByName(method)
    service, name = method.rsplit(".", 1)
    path = f"/{service}/{name}"
    request, response = (
        GetMessageClass(kind) for kind in (descriptor.input_type, descriptor.output_type)
    )
    kinds: dict[str, Any] = {
        "request_serializer": request.SerializeToString,
        "response_deserializer": response.FromString,
    }
    async with grpc.aio.insecure_channel(target) as channel:
        if not descriptor.client_streaming:
            calling = channel.unary_unary(path, **kinds)(request(), metadata=metadata)
            answer: Message = await soon(calling)
            return answer
        stream = channel.stream_stream(path, **kinds)(iter([request()]), metadata=metadata)
        streamed: Message = await soon(stream.read())
        return streamed


def bearer(key: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {key}")


async def create_key(served: Served, **fields: Any) -> tuple[str, str]:
    """A key's id, and the key."""
    values = {"client_id": "partner", "scopes": ["usage.write"], **fields}
    answer = await served.auth.CreateApiKey(
        auth_service_pb2.CreateApiKeyRequest(request_id=new_key(), **values)
    )
    return answer.api_key.id, answer.key


async def revoke(served: Served, key_id: str) -> None:
    await served.auth.RevokeApiKey(auth_service_pb2.RevokeApiKeyRequest(id=key_id))


@pytest.mark.parametrize("method", methods())
class TestEveryMethod:
    async def test_needs_credentials(self, served: Served, method: str) -> None:
        with refused("CREDENTIALS_MISSING"):
            await call(served.target, method)
        with refused("CREDENTIALS_MISSING"):
            await call(served.target, method, ("authorization", "Basic eA=="))

    async def test_needs_a_key_that_there_is(self, served: Served, method: str) -> None:
        for key in ("nonsense", f"zaaz_{'0' * 24}_{'0' * 43}", served.api_key[:-1] + "~"):
            with refused("CREDENTIALS_INVALID"):
                await call(served.target, method, bearer(key))

    async def test_needs_one_of_its_scopes(
        self, served: Served, mongo_url: str, method: str
    ) -> None:
        needed = allowed(method)
        assert needed
        assert needed <= SCOPES
        others = sorted(SCOPES - needed - {"admin"})
        key = await make_key(mongo_url, "test_served", "partner", others)
        with refused("SCOPE_MISSING") as refusal:
            await call(served.target, method, bearer(key))
        assert set(refusal.metadata["scopes"].split(", ")) == needed

    async def test_takes_each_of_its_scopes(
        self, served: Served, mongo_url: str, method: str
    ) -> None:
        """An empty request may be refused, but not for the key."""
        for scope in {*allowed(method), "admin"}:
            key = await make_key(mongo_url, "test_served", "partner", [scope])
            try:
                await call(served.target, method, bearer(key))
            except grpc.aio.AioRpcError as error:
                asked_for = reason_of(error)
                if asked_for not in BEYOND_ACCESS:
                    raise


class TestKeys:
    async def test_expire(self, clocked: Served, manual_clock: Any) -> None:
        key_id, key = await create_key(clocked, expires_time=at(manual_clock() + 1_000))
        async with connected(clocked.target, key) as partner:
            await partner.record(usage_event(await clocked.new_wallet()))
            manual_clock.advance(1_000)
            with refused("API_KEY_EXPIRED") as refusal:
                await partner.record(usage_event(await clocked.new_wallet()))
        assert refusal.metadata == {"api_key_id": key_id}

    async def test_end_when_they_are_revoked(self, served: Served) -> None:
        user_id = await served.new_wallet()
        key_id, key = await create_key(served)
        async with connected(served.target, key) as partner:
            await partner.record(usage_event(user_id))
            await revoke(served, key_id)
            with refused("API_KEY_REVOKED") as refusal:
                await partner.record(usage_event(user_id))
        assert refusal.metadata == {"api_key_id": key_id}
        assert (await served.wallet(user_id)).sequence == 1

    async def test_take_their_open_streams_with_them_within_a_second(self, served: Served) -> None:
        user_id = await served.new_wallet()
        key_id, key = await create_key(served)
        try:
            async with connected(served.target, key) as partner:
                stream, _ = await Ingest.opened(partner, new_key())
                stream.frame(0, usage_event(user_id))
                await stream.answer("ack")
                await revoke(served, key_id)
                with refused("API_KEY_REVOKED"):
                    await asyncio.wait_for(stream.rest(), 1)
        finally:
            await Ingest.close_all()

    async def test_leave_other_clients_streams_alone(self, served: Served) -> None:
        key_id, _ = await create_key(served)
        try:
            stream, _ = await Ingest.opened(served, new_key())
            await revoke(served, key_id)
            stream.frame(0, usage_event(await served.new_wallet()))
            await stream.answer("ack")
            stream.end()
            assert await stream.rest() == []
        finally:
            await Ingest.close_all()

    async def test_of_readers_do_not_write(self, served: Served, mongo_url: str) -> None:
        user_id = await served.new_wallet()
        scopes = ["wallet.read", "credits.read", "usage.read"]
        key = await make_key(mongo_url, "test_served", "reader", scopes)
        async with connected(served.target, key) as reader:
            assert (await reader.wallet(user_id)).sequence == 0
            with refused("SCOPE_MISSING"):
                await reader.grant(user_id, 1)
            with refused("SCOPE_MISSING"):
                await reader.record(usage_event(user_id))
            with refused("SCOPE_MISSING"):
                await reader.usage.DiscardRejectedUsage(
                    usage_pb.DiscardRejectedUsageRequest(ids=["0" * 24])
                )
        assert (await served.wallet(user_id)).sequence == 0
