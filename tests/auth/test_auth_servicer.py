"""AuthService through its contract, on a real server with the real edge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from zaaz.auth.v1 import auth_service_pb2 as pb
from zaaz.auth.v1.auth_service_pb2_grpc import AuthServiceStub, add_AuthServiceServicer_to_server

from server.auth.service import AuthService
from server.auth.servicer import AuthServicer
from server.kernel.paging import PageTokens
from server.rpc.address import Address
from server.rpc.drain import Drain
from server.rpc.edge import Edge
from server.rpc.server import RpcServer
from server.rpc.telemetry import Telemetry
from tests.serving import reason_of as reason_in


class Api:
    """The service as a partner sees it, called with an admin key unless told otherwise."""

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        self._stub = AuthServiceStub(channel)
        self._key = key

    def metadata(self, key: str | None) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {key or self._key}"),)

    async def create(self, key: str | None = None, **fields: object) -> pb.CreateApiKeyResponse:
        wanted = {"request_id": "r-1", "client_id": "partner", "scopes": ["wallet.read"]} | fields
        request = pb.CreateApiKeyRequest(**wanted)  # type: ignore[arg-type]
        return await self._stub.CreateApiKey(request, metadata=self.metadata(key))

    async def list(self, key: str | None = None, **fields: object) -> pb.ListApiKeysResponse:
        request = pb.ListApiKeysRequest(**fields)  # type: ignore[arg-type]
        return await self._stub.ListApiKeys(request, metadata=self.metadata(key))

    async def revoke(self, key_id: str, key: str | None = None) -> pb.RevokeApiKeyResponse:
        request = pb.RevokeApiKeyRequest(id=key_id)
        return await self._stub.RevokeApiKey(request, metadata=self.metadata(key))


@pytest.fixture
async def api(service: AuthService) -> AsyncIterator[Api]:
    edge = Edge(service, lambda _: None, Drain(), Telemetry(None))
    server = RpcServer(Address("127.0.0.1", 0), edge)
    servicer = AuthServicer(service, PageTokens("a server secret"))
    server.add(add_AuthServiceServicer_to_server, servicer)
    address = await server.start()
    admin = await service.create_first_key("platform", ("admin",))
    async with grpc.aio.insecure_channel(str(address)) as channel:
        yield Api(channel, admin.key)
    await server.stop()


async def reason_of(call: object) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call  # type: ignore[misc]
    return reason_in(refusal.value)


def names(keys: Iterable[pb.ApiKey]) -> list[str]:
    return [key.name for key in keys]


class TestCreateApiKey:
    async def test_makes_a_key_that_is_used_at_once(self, api: Api) -> None:
        expires_time = Timestamp(seconds=2_000_000_000, nanos=123_000_000)
        created = await api.create(scopes=["admin"], name="backend", expires_time=expires_time)
        assert created.api_key.client_id == "partner"
        assert created.api_key.name == "backend"
        assert created.api_key.expires_time == expires_time
        assert created.api_key.HasField("created_time")
        assert not created.api_key.HasField("revoked_time")
        assert await api.list(key=created.key)

    async def test_a_replay_returns_the_key_and_another_payload_is_refused(self, api: Api) -> None:
        first = await api.create()
        assert await api.create() == first
        assert await reason_of(api.create(name="other")) == "REQUEST_ID_REUSED"

    async def test_request_ids_belong_to_the_calling_client(self, api: Api) -> None:
        partner = await api.create(scopes=["admin"])
        again = await api.create(key=partner.key, scopes=["admin"])
        assert again.key != partner.key

    @pytest.mark.parametrize(
        "fields",
        [
            {"request_id": ""},
            {"client_id": "Not a client"},
            {"scopes": []},
            {"scopes": ["root"]},
            {"scopes": ["admin", "admin"]},
            {"name": "n" * 101},
            {"expires_time": Timestamp(seconds=1_000)},
            {"expires_time": Timestamp(seconds=-1)},
            {"expires_time": Timestamp(seconds=300_000_000_000)},
            {"expires_time": Timestamp(seconds=2_000_000_000, nanos=-1)},
        ],
    )
    async def test_bad_fields_are_refused(self, api: Api, fields: dict[str, Any]) -> None:
        assert await reason_of(api.create(**fields)) == "FIELD_INVALID"
        assert len((await api.list()).api_keys) == 1

    async def test_is_for_admins(self, api: Api) -> None:
        created = await api.create(scopes=["wallet.read", "credits.write"])
        assert await reason_of(api.create(key=created.key)) == "SCOPE_MISSING"
        assert await reason_of(api.create(key="zaaz_nonsense")) == "CREDENTIALS_INVALID"


class TestListApiKeys:
    async def test_walks_all_pages_newest_first(self, api: Api) -> None:
        for number in range(5):
            await api.create(request_id=f"r-{number}", name=f"key {number}")
        first = await api.list(client_id="partner", page_size=2)
        second = await api.list(client_id="partner", page_size=2, page_token=first.next_page_token)
        third = await api.list(client_id="partner", page_size=2, page_token=second.next_page_token)
        walked = [*first.api_keys, *second.api_keys, *third.api_keys]
        assert names(walked) == ["key 4", "key 3", "key 2", "key 1", "key 0"]
        assert third.next_page_token == ""

    async def test_a_full_last_page_has_no_next(self, api: Api) -> None:
        await api.create()
        page = await api.list(page_size=2)
        assert len(page.api_keys) == 2
        assert page.next_page_token == ""

    async def test_a_token_of_another_query_or_hand_is_refused(self, api: Api) -> None:
        await api.create()
        token = (await api.list(page_size=1)).next_page_token
        other = api.list(page_size=1, client_id="partner", page_token=token)
        assert await reason_of(other) == "PAGE_TOKEN_INVALID"
        assert await reason_of(api.list(page_token="forged")) == "PAGE_TOKEN_INVALID"
        assert await reason_of(api.list(page_token=token + "A")) == "PAGE_TOKEN_INVALID"
        assert await reason_of(api.list(page_size=-1)) == "FIELD_INVALID"


class TestRevokeApiKey:
    async def test_the_key_is_refused_from_then_on(self, api: Api) -> None:
        created = await api.create(scopes=["admin"])
        assert await api.list(key=created.key)
        revoked = await api.revoke(created.api_key.id)
        assert revoked.api_key.HasField("revoked_time")
        assert await reason_of(api.list(key=created.key)) == "API_KEY_REVOKED"
        assert await api.revoke(created.api_key.id) == revoked
        shown = await api.list(client_id="partner", show_revoked=True)
        assert list(shown.api_keys) == [revoked.api_key]

    async def test_says_what_is_wrong(self, api: Api) -> None:
        assert await reason_of(api.revoke("f" * 24)) == "API_KEY_NOT_FOUND"
        assert await reason_of(api.revoke("x")) == "MALFORMED_ID"

    async def test_many_callers_at_once(self, api: Api) -> None:
        created = await api.create()
        answers = await asyncio.gather(*(api.revoke(created.api_key.id) for _ in range(20)))
        assert {answer.api_key.revoked_time.ToNanoseconds() for answer in answers} == {
            answers[0].api_key.revoked_time.ToNanoseconds()
        }
