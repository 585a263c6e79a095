"""Making, listing and revoking keys, on a real database."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest
from bson import ObjectId

from server.auth.model import NewApiKey, hash_secret, parse_key
from server.auth.service import OPERATOR, AuthService
from server.auth.store import KeyFilter
from server.kernel.errors import DomainError, Reason
from server.mongo.database import Database
from tests.serving import ManualClock

if TYPE_CHECKING:
    from tests.auth.conftest import NewService

CREATOR = "platform"
WANTED = NewApiKey("r-1", "partner", "backend", ("wallet.read", "usage.write"))


async def refusal_of(awaitable: object) -> DomainError:
    with pytest.raises(DomainError) as refusal:
        await awaitable  # type: ignore[misc]
    return refusal.value


class TestCreateKey:
    async def test_the_key_works(self, service: AuthService) -> None:
        created = await service.create_key(CREATOR, WANTED)
        principal = await service.authenticate(created.key)
        assert principal.client_id == "partner"
        assert principal.scopes == {"wallet.read", "usage.write"}
        assert principal.api_key_id == str(created.api_key.id)

    async def test_only_the_hash_of_the_secret_is_stored(
        self, service: AuthService, database: Database
    ) -> None:
        created = await service.create_key(CREATOR, WANTED)
        parsed = parse_key(created.key)
        assert parsed is not None
        row = await database.collection("api_keys").find_one({"_id": created.api_key.id})
        assert row is not None
        assert row["secret_sha256"] == hash_secret(parsed[1])
        assert parsed[1] not in str(row)

    async def test_a_replay_returns_the_same_key(
        self, service: AuthService, new_service: NewService, clock: ManualClock
    ) -> None:
        first = await service.create_key(CREATOR, WANTED)
        clock.advance(1)
        assert await new_service().create_key(CREATOR, WANTED) == first

    async def test_twins_make_one_key(self, new_service: NewService, database: Database) -> None:
        services = [new_service() for _ in range(8)]
        made = await asyncio.gather(*(each.create_key(CREATOR, WANTED) for each in services))
        assert len({created.key for created in made}) == 1
        assert await database.collection("api_keys").count_documents({}) == 1

    async def test_the_same_request_id_with_another_payload_is_refused(
        self, service: AuthService
    ) -> None:
        await service.create_key(CREATOR, WANTED)
        other = dataclasses.replace(WANTED, scopes=("admin",))
        refusal = await refusal_of(service.create_key(CREATOR, other))
        assert refusal.reason is Reason.REQUEST_ID_REUSED
        assert refusal.metadata == {"request_id": "r-1"}

    async def test_clients_do_not_share_request_ids(self, service: AuthService) -> None:
        one = await service.create_key("one", WANTED)
        two = await service.create_key("two", WANTED)
        assert one.key != two.key

    async def test_a_replay_after_the_server_secret_changed_has_no_key(
        self, service: AuthService, new_service: NewService
    ) -> None:
        first = await service.create_key(CREATOR, WANTED)
        rotated = new_service("another secret")
        replayed = await rotated.create_key(CREATOR, WANTED)
        assert replayed.api_key == first.api_key
        assert replayed.key == ""
        # The key itself does not depend on the server's secret.
        assert await rotated.authenticate(first.key)

    @pytest.mark.parametrize("age_ms", [0, 1, 50 * 365 * 86_400_000])
    async def test_a_key_that_would_be_born_dead_is_refused(
        self, service: AuthService, clock: ManualClock, age_ms: int
    ) -> None:
        wanted = dataclasses.replace(WANTED, expires_time=clock.now_ms - age_ms)
        refusal = await refusal_of(service.create_key(CREATOR, wanted))
        assert refusal.reason is Reason.FIELD_INVALID
        assert refusal.metadata == {"field": "expires_time"}

    async def test_a_replay_after_expiry_is_still_a_replay(
        self, service: AuthService, clock: ManualClock
    ) -> None:
        wanted = dataclasses.replace(WANTED, expires_time=clock.now_ms + 1_000)
        first = await service.create_key(CREATOR, wanted)
        clock.advance(2_000)
        assert await service.create_key(CREATOR, wanted) == first

    async def test_the_last_moment_of_the_calendar_survives(self, service: AuthService) -> None:
        wanted = dataclasses.replace(WANTED, expires_time=253_402_300_799_999)
        await service.create_key(CREATOR, wanted)
        replayed = await service.create_key(CREATOR, wanted)
        assert replayed.api_key.expires_time == 253_402_300_799_999


class TestCreateFirstKey:
    async def test_is_a_new_key_each_time(self, service: AuthService, database: Database) -> None:
        one = await service.create_first_key("partner", ("admin",))
        two = await service.create_first_key("partner", ("admin",))
        assert one.key != two.key
        assert (await service.authenticate(one.key)).is_admin
        rows = await database.collection("api_keys").find({}).to_list()
        assert {row["creator_client_id"] for row in rows} == {OPERATOR}

    async def test_refuses_what_the_contract_refuses(self, service: AuthService) -> None:
        refusal = await refusal_of(service.create_first_key("partner", ("root",)))
        assert refusal.metadata == {"field": "scopes"}
        refusal = await refusal_of(service.create_first_key("zaaz", ("admin",)))
        assert refusal.metadata == {"field": "client_id"}


class TestListKeys:
    async def test_newest_first_page_by_page(self, service: AuthService) -> None:
        made = [
            (await service.create_key(CREATOR, dataclasses.replace(WANTED, request_id=f"r-{n}")))
            for n in range(5)
        ]
        newest_first = [created.api_key for created in reversed(made)]
        first = await service.list_keys(KeyFilter(), None, 3)
        rest = await service.list_keys(KeyFilter(), first[-1].id, 3)
        assert first + rest == newest_first

    async def test_filters_by_client_and_leaves_out_the_revoked(self, service: AuthService) -> None:
        alive = await service.create_first_key("one", ("admin",))
        revoked = await service.create_first_key("one", ("admin",))
        other = await service.create_first_key("two", ("admin",))
        await service.revoke_key(revoked.api_key.id)

        async def ids(which: KeyFilter) -> set[ObjectId]:
            return {key.id for key in await service.list_keys(which, None, 10)}

        assert await ids(KeyFilter()) == {alive.api_key.id, other.api_key.id}
        assert await ids(KeyFilter("one")) == {alive.api_key.id}
        both = {alive.api_key.id, revoked.api_key.id}
        assert await ids(KeyFilter("one", show_revoked=True)) == both


class TestRevokeKey:
    async def test_ends_the_key_at_once_where_it_is_revoked(self, service: AuthService) -> None:
        created = await service.create_key(CREATOR, WANTED)
        await service.authenticate(created.key)
        await service.revoke_key(created.api_key.id)
        refusal = await refusal_of(service.authenticate(created.key))
        assert refusal.reason is Reason.API_KEY_REVOKED
        assert refusal.metadata == {"api_key_id": str(created.api_key.id)}

    async def test_twice_keeps_the_first_time(
        self, service: AuthService, clock: ManualClock
    ) -> None:
        created = await service.create_key(CREATOR, WANTED)
        first = await service.revoke_key(created.api_key.id)
        assert first.revoked_time == clock.now_ms
        clock.advance(1_000)
        assert await service.revoke_key(created.api_key.id) == first

    async def test_an_unknown_key_is_named(self, service: AuthService) -> None:
        key_id = ObjectId()
        refusal = await refusal_of(service.revoke_key(key_id))
        assert refusal.reason is Reason.API_KEY_NOT_FOUND
        assert refusal.metadata == {"id": str(key_id)}
