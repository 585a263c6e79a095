"""From token to principal: the cache, the refresher, the ends of streams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from bson import ObjectId

from server.auth import authenticator as authenticator_module
from server.auth.authenticator import MAX_STALE_MS, KeyAuthenticator
from server.auth.cache import KeyCache, Verified
from server.auth.model import ApiKey, CreatedKey, KeySecrets, NewApiKey, format_key
from server.auth.service import AuthService
from server.auth.store import COLLECTIONS, ApiKeyStore
from server.kernel.errors import DomainError, Reason
from server.kernel.principal import Principal
from server.mongo.client import connect
from server.mongo.database import Database
from server.mongo.embedded import EmbeddedMongod
from tests.serving import ManualClock

if TYPE_CHECKING:
    from tests.auth.conftest import NewService

BOUND_SECONDS = 60


async def reason_of(service: AuthService | KeyAuthenticator, token: str) -> Reason:
    with pytest.raises(DomainError) as refusal:
        await service.authenticate(token)
    return refusal.value.reason


@pytest.fixture
async def created(service: AuthService) -> CreatedKey:
    return await service.create_first_key("partner", ("wallet.read",))


class TestAuthenticate:
    @pytest.mark.parametrize("token", ["", "zaaz", "zaaz__", "zaaz_1_2", "\ud800", "x" * 10_000])
    async def test_a_malformed_token_is_no_key(self, service: AuthService, token: str) -> None:
        assert await reason_of(service, token) is Reason.CREDENTIALS_INVALID

    async def test_an_unknown_key_and_a_wrong_secret_look_alike(
        self, service: AuthService, created: CreatedKey
    ) -> None:
        secret = KeySecrets("guessed").derive(ObjectId())
        unknown = format_key(ObjectId(), secret)
        wrong = format_key(created.api_key.id, secret)
        assert await reason_of(service, unknown) is Reason.CREDENTIALS_INVALID
        assert await reason_of(service, wrong) is Reason.CREDENTIALS_INVALID

    async def test_a_wrong_secret_is_refused_beside_a_cached_key(
        self, service: AuthService, created: CreatedKey
    ) -> None:
        await service.authenticate(created.key)
        wrong = format_key(created.api_key.id, KeySecrets("guessed").derive(created.api_key.id))
        assert await reason_of(service, wrong) is Reason.CREDENTIALS_INVALID
        assert await service.authenticate(created.key)

    async def test_a_wrong_secret_does_not_learn_that_the_key_is_revoked(
        self, service: AuthService, created: CreatedKey
    ) -> None:
        await service.revoke_key(created.api_key.id)
        wrong = format_key(created.api_key.id, KeySecrets("guessed").derive(ObjectId()))
        assert await reason_of(service, wrong) is Reason.CREDENTIALS_INVALID

    async def test_expiry_needs_no_refresh(self, service: AuthService, clock: ManualClock) -> None:
        wanted = NewApiKey("r", "partner", "", ("admin",), clock.now_ms + 1_000)
        created = await service.create_key("platform", wanted)
        clock.advance(999)
        assert await service.authenticate(created.key)
        clock.advance(1)
        assert await reason_of(service, created.key) is Reason.API_KEY_EXPIRED

    async def test_one_key_cannot_be_evicted_by_guesses(
        self, service: AuthService, database: Database, clock: ManualClock
    ) -> None:
        keys = [await service.create_first_key("partner", ("admin",)) for _ in range(3)]
        authenticator = KeyAuthenticator(ApiKeyStore(database), clock, max_cached_keys=2)
        for created in keys:
            await authenticator.authenticate(created.key)
        for _ in range(5):
            await reason_of(authenticator, format_key(ObjectId(), "a" * 52))
        # The two most recent ones are answered without the database.
        await database.collection("api_keys").delete_many({})
        assert await authenticator.authenticate(keys[1].key)
        assert await authenticator.authenticate(keys[2].key)
        assert await reason_of(authenticator, keys[0].key) is Reason.CREDENTIALS_INVALID


class TestCache:
    def test_the_least_recently_used_goes(self) -> None:
        cache = KeyCache(2)
        entries = {
            name: Verified(Principal("client", name, frozenset()), None, 0) for name in "abc"
        }
        cache.put(b"a", entries["a"])
        cache.put(b"b", entries["b"])
        cache.get(b"a")
        cache.put(b"c", entries["c"])
        assert cache.get(b"b") is None
        assert set(cache.key_ids()) == {"a", "c"}
        assert len(cache) == 2

    def test_a_dropped_key_is_gone(self) -> None:
        cache = KeyCache(2)
        cache.put(b"a", Verified(Principal("client", "a", frozenset()), None, 0))
        cache.drop("a")
        cache.drop("a")
        assert cache.get(b"a") is None
        assert cache.of_key("a") is None


class TestRefresh:
    async def test_a_key_revoked_by_another_process_dies_with_its_streams(
        self, service: AuthService, new_service: NewService, created: CreatedKey
    ) -> None:
        elsewhere = new_service()
        principal = await elsewhere.authenticate(created.key)
        end, closed = Mock(), Mock()
        elsewhere.watch(principal, end)
        elsewhere.watch(principal, closed)()
        await service.revoke_key(created.api_key.id)
        assert await elsewhere.authenticate(created.key)
        end.assert_not_called()

        await elsewhere.refresh()
        assert await reason_of(elsewhere, created.key) is Reason.API_KEY_REVOKED
        end.assert_called_once()
        assert end.call_args.args[0].reason is Reason.API_KEY_REVOKED
        closed.assert_not_called()
        await elsewhere.refresh()
        end.assert_called_once()

    async def test_streams_end_when_their_key_leaves_the_cache_too(
        self, database: Database, service: AuthService, created: CreatedKey, clock: ManualClock
    ) -> None:
        authenticator = KeyAuthenticator(ApiKeyStore(database), clock, max_cached_keys=1)
        end = Mock()
        authenticator.watch(await authenticator.authenticate(created.key), end)
        other = await service.create_first_key("other", ("admin",))
        await authenticator.authenticate(other.key)
        await service.revoke_key(created.api_key.id)
        await authenticator.refresh()
        end.assert_called_once()
        assert await authenticator.authenticate(other.key)

    async def test_streams_end_at_once_where_the_key_is_revoked(
        self, service: AuthService, created: CreatedKey
    ) -> None:
        end = Mock()
        remove = service.watch(await service.authenticate(created.key), end)
        await service.revoke_key(created.api_key.id)
        end.assert_called_once()
        remove()
        remove()

    async def test_one_stream_that_cannot_be_ended_does_not_keep_the_others(
        self, service: AuthService, created: CreatedKey
    ) -> None:
        principal = await service.authenticate(created.key)
        end = Mock()
        service.watch(principal, Mock(side_effect=RuntimeError))
        service.watch(principal, end)
        await service.revoke_key(created.api_key.id)
        end.assert_called_once()

    async def test_streams_of_an_expired_key_end(
        self, service: AuthService, clock: ManualClock
    ) -> None:
        wanted = NewApiKey("r", "partner", "", ("admin",), clock.now_ms + 1_000)
        created = await service.create_key("platform", wanted)
        end = Mock()
        service.watch(await service.authenticate(created.key), end)
        clock.advance(999)
        await service.refresh()
        end.assert_not_called()
        clock.advance(1)
        await service.refresh()
        end.assert_called_once()
        assert end.call_args.args[0].reason is Reason.API_KEY_EXPIRED

    async def test_a_deleted_row_ends_its_key(
        self, service: AuthService, created: CreatedKey, database: Database
    ) -> None:
        end = Mock()
        service.watch(await service.authenticate(created.key), end)
        await database.collection("api_keys").delete_one({"_id": created.api_key.id})
        await service.refresh()
        assert end.call_args.args[0].reason is Reason.CREDENTIALS_INVALID
        assert await reason_of(service, created.key) is Reason.CREDENTIALS_INVALID

    async def test_every_page_of_keys_is_asked_about(
        self, service: AuthService, new_service: NewService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(authenticator_module, "REFRESH_PAGE_SIZE", 2)
        elsewhere = new_service()
        keys = [await service.create_first_key("partner", ("admin",)) for _ in range(5)]
        ends = [Mock() for _ in keys]
        for created, end in zip(keys, ends, strict=True):
            elsewhere.watch(await elsewhere.authenticate(created.key), end)
            await service.revoke_key(created.api_key.id)
        await elsewhere.refresh()
        for end in ends:
            end.assert_called_once()

    async def test_a_key_revoked_while_it_is_looked_up_is_not_kept(
        self, service: AuthService, created: CreatedKey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        find = ApiKeyStore.find

        async def find_too_early(store: ApiKeyStore, key_id: ObjectId) -> ApiKey | None:
            monkeypatch.undo()
            found = await find(store, key_id)
            await service.revoke_key(key_id)
            return found

        monkeypatch.setattr(ApiKeyStore, "find", find_too_early)
        await service.authenticate(created.key)
        assert await reason_of(service, created.key) is Reason.API_KEY_REVOKED

    async def test_the_task_does_it_by_itself(
        self, service: AuthService, new_service: NewService, created: CreatedKey
    ) -> None:
        elsewhere = new_service()
        ended = asyncio.Event()
        elsewhere.watch(await elsewhere.authenticate(created.key), lambda _: ended.set())
        task = asyncio.create_task(elsewhere.run())
        await service.revoke_key(created.api_key.id)
        async with asyncio.timeout(BOUND_SECONDS):
            await ended.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def test_the_task_ends_although_the_driver_swallows_its_cancellation(
        self, database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        authenticator = KeyAuthenticator(ApiKeyStore(database), clock)
        refreshing = asyncio.Event()

        async def refresh() -> None:
            refreshing.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

        monkeypatch.setattr(authenticator, "refresh", refresh)
        task = asyncio.create_task(authenticator.run())
        async with asyncio.timeout(BOUND_SECONDS):
            await refreshing.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


@pytest.fixture
def refresher_failed() -> Iterator[asyncio.Event]:
    """Set by the log line of a refresh that failed."""
    failed = asyncio.Event()

    def hear(record: logging.LogRecord) -> bool:
        if "could not be refreshed" in record.getMessage():
            failed.set()
        return True

    logger = logging.getLogger("server.auth.authenticator")
    level = logger.level
    # A server that ran before may have silenced the root.
    logger.setLevel(logging.INFO)
    logger.addFilter(hear)
    yield failed
    logger.removeFilter(hear)
    logger.setLevel(level)


@pytest.fixture
async def mongod(tmp_path: Path) -> AsyncIterator[EmbeddedMongod]:
    """One that a test may stop and start."""
    mongod = EmbeddedMongod(tmp_path, cache_gigabytes=0.25)
    yield mongod
    await mongod.stop()


async def until_served(service: AuthService, token: str) -> None:
    """Ask until the driver has found the database again; it looks for half a second each time."""
    async with asyncio.timeout(BOUND_SECONDS):
        while True:
            with suppress(DomainError):
                await service.authenticate(token)
                return


class TestWithoutDatabase:
    async def test_keys_stay_valid_for_a_while_and_the_refresher_goes_on(
        self, mongod: EmbeddedMongod, clock: ManualClock, refresher_failed: asyncio.Event
    ) -> None:
        client = await connect(await mongod.start() + "&serverSelectionTimeoutMS=500")
        database = Database(client, "away")
        await database.prepare(COLLECTIONS)
        service = AuthService(database, "a server secret", clock)
        created = await service.create_first_key("partner", ("admin",))
        await service.authenticate(created.key)
        expiring = NewApiKey("r", "partner", "", ("admin",), clock.now_ms + MAX_STALE_MS + 1_000)
        end = Mock()
        stream = await service.create_key("platform", expiring)
        service.watch(await service.authenticate(stream.key), end)
        clock.advance(MAX_STALE_MS)
        await service.refresh()
        await mongod.stop()
        task = asyncio.create_task(service.run())

        clock.advance(MAX_STALE_MS)
        assert await service.authenticate(created.key)
        with pytest.raises(DomainError, match="cannot be reached"):
            await service.refresh()
        assert end.call_args.args[0].reason is Reason.API_KEY_EXPIRED
        clock.advance(1)
        assert await reason_of(service, created.key) is Reason.DEPENDENCY_UNAVAILABLE
        unknown = format_key(ObjectId(), "a" * 52)
        assert await reason_of(service, unknown) is Reason.DEPENDENCY_UNAVAILABLE
        async with asyncio.timeout(BOUND_SECONDS):
            await refresher_failed.wait()

        await mongod.start()
        await until_served(service, created.key)
        assert not task.done()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await client.close()
