"""WatchWallet over the contract, on real servers."""

import asyncio
from contextlib import AsyncExitStack

import grpc
import pytest
from zaaz.auth.v1 import auth_service_pb2

from server.kernel.clock import DAY_MS
from server.kernel.paging import PageTokens
from server.wallet.resume_tokens import MAX_TOKEN_AGE_MS, ResumeTokens
from server.wallet.watches import WalletWatches
from tests.conftest import MongoClient
from tests.ledger.calls import at, refused, soon
from tests.serving import (
    SECRET,
    ManualClock,
    Served,
    connected,
    make_key,
    new_user,
    reason_of,
    serving,
)
from tests.wallet.watching import Watch, assert_ranges, watching

DATABASE = "test_served"
CREDITS = 1_000_000


class TestSnapshot:
    async def test_is_the_wallet_as_it_is(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDITS)
        await served.consume(user_id, 300)
        async with watching(served, user_id) as watch:
            first = await watch.next()
        assert first.snapshot == await served.wallet(user_id)
        assert first.resume_token

    async def test_of_a_wallet_without_transactions(self, served: Served) -> None:
        user_id = await served.new_wallet()
        async with watching(served, user_id) as watch:
            assert (await watch.next()).snapshot.sequence == 0
            await served.grant(user_id, 5)
            assert_ranges(await watch.changes_to(1), 0, 1)

    async def test_has_what_a_watcher_just_did_however_many_watch(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDITS)
        async with watching(served, user_id) as early:
            await early.next()
            for micros in (1, 2, 3):
                await served.consume(user_id, micros)
                async with watching(served, user_id) as late:
                    snapshot = (await late.next()).snapshot
                assert snapshot == await served.wallet(user_id)

    async def test_leaves_out_what_has_expired(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet(100)
        await clocked.grant(user_id, 40, expires_time=at(manual_clock() + DAY_MS))
        async with watching(clocked, user_id) as watch:
            before = (await watch.next()).snapshot
            manual_clock.advance(DAY_MS)
            async with watching(clocked, user_id) as later:
                after = (await later.next()).snapshot
            assert (before.credits_micros, after.credits_micros) == (140, 100)
            assert after.sequence == before.sequence
            # Told with the entry that the next operation writes for it.
            await clocked.consume(user_id, 1)
            changes = await watch.changes_to(before.sequence + 2)
        assert_ranges(changes, before.sequence, before.sequence + 2)
        assert changes[-1].credits_micros == 99


class TestChanges:
    async def test_have_the_state_after(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDITS)
        async with watching(served, user_id) as watch:
            known = (await watch.next()).snapshot.sequence
            await served.consume(user_id, 300)
            (change,) = await watch.changes_to(known + 1)
        wallet = await served.wallet(user_id)
        assert (change.first_sequence, change.sequence) == (known + 1, known + 1)
        for name in ("credits_micros", "held_micros", "available_micros", "debt_micros"):
            assert getattr(change, name) == getattr(wallet, name)
        assert change.updated_time == wallet.updated_time

    async def test_of_a_hundred_at_once_leave_nothing_out(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDITS)
        async with watching(served, user_id) as watch:
            known = (await watch.next()).snapshot.sequence
            async with asyncio.TaskGroup() as tasks:
                for _ in range(100):
                    tasks.create_task(served.consume(user_id, 1))
            changes = await watch.changes_to(known + 100)
        assert_ranges(changes, known, known + 100)
        assert changes[-1].credits_micros == CREDITS - 100

    async def test_of_another_server_arrive(self, served: Served, mongo_url: str) -> None:
        user_id = await served.new_wallet(CREDITS)
        async with serving(mongo_url, DATABASE) as other, watching(served, user_id) as watch:
            known = (await watch.next()).snapshot.sequence
            for number in range(1, 4):
                await other.consume(user_id, 1)
                changes = await watch.changes_to(known + number)
                assert_ranges(changes, known + number - 1, known + number)

    async def test_are_told_of_by_the_outbox(
        self, mongo_url: str, mongo_client: MongoClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def never(_: WalletWatches) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(WalletWatches, "sweep", never)
        async with serving(mongo_url, "test_watch_news") as server:
            user_id = await server.new_wallet(CREDITS)
            async with watching(server, user_id) as watch:
                known = (await watch.next()).snapshot.sequence
                await server.consume(user_id, 1)
                assert_ranges(await watch.changes_to(known + 1), known, known + 1)
        await mongo_client.drop_database("test_watch_news")

    async def test_of_others_do_not(self, served: Served) -> None:
        mine, other = await served.new_wallet(CREDITS), await served.new_wallet(CREDITS)
        async with watching(served, mine) as watch:
            known = (await watch.next()).snapshot.sequence
            await served.consume(other, 1)
            await served.consume(mine, 2)
            (change,) = await watch.changes_to(known + 1)
        assert change.credits_micros == CREDITS - 2


class TestResume:
    async def test_tells_what_was_missed_as_one_change(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDITS)
        async with watching(served, user_id) as watch:
            known = (await watch.next()).snapshot.sequence
        for _ in range(3):
            await served.consume(user_id, 1)
        async with watching(served, user_id, watch.token) as again:
            change = (await again.next()).change
            assert (change.first_sequence, change.sequence) == (known + 1, known + 3)
            await served.consume(user_id, 1)
            assert_ranges(await again.changes_to(known + 4), known + 3, known + 4)

    async def test_from_any_message(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDITS)
        async with watching(served, user_id) as watch:
            known = (await watch.next()).snapshot.sequence
            await served.consume(user_id, 1)
            await watch.changes_to(known + 1)
        await served.consume(user_id, 1)
        async with watching(served, user_id, watch.token) as again:
            assert_ranges(await again.changes_to(known + 2), known + 1, known + 2)

    async def test_with_nothing_missed_says_so_at_once(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDITS)
        async with watching(served, user_id) as watch:
            known = (await watch.next()).snapshot.sequence
        async with watching(served, user_id, watch.token) as again:
            assert (await again.next()).bookmark.sequence == known
            await served.consume(user_id, 1)
            assert_ranges(await again.changes_to(known + 1), known, known + 1)

    async def test_on_another_server(self, served: Served, mongo_url: str) -> None:
        user_id = await served.new_wallet(CREDITS)
        async with watching(served, user_id) as watch:
            known = (await watch.next()).snapshot.sequence
        await served.consume(user_id, 1)
        async with (
            serving(mongo_url, DATABASE) as other,
            watching(other, user_id, watch.token) as again,
        ):
            assert_ranges(await again.changes_to(known + 1), known, known + 1)


class TestResyncRequired:
    async def assert_required(self, served: Served, user_id: str, token: str) -> None:
        async with watching(served, user_id, token) as watch:
            with refused("RESYNC_REQUIRED") as refusal:
                await watch.next()
        assert refusal.code is grpc.StatusCode.OUT_OF_RANGE

    @pytest.mark.parametrize("damage", ["x", "é", "====", "A" * 60])
    async def test_for_a_token_that_is_none(self, served: Served, damage: str) -> None:
        await self.assert_required(served, await served.new_wallet(), damage)

    async def test_for_a_token_with_one_character_changed(self, served: Served) -> None:
        user_id = await served.new_wallet()
        async with watching(served, user_id) as watch:
            token = (await watch.next()).resume_token
        changed = token[:30] + ("A" if token[30] != "A" else "B") + token[31:]
        await self.assert_required(served, user_id, changed)

    async def test_for_a_token_of_another_wallet(self, served: Served) -> None:
        mine, other = await served.new_wallet(CREDITS), await served.new_wallet(CREDITS)
        async with watching(served, other) as watch:
            token = (await watch.next()).resume_token
        await self.assert_required(served, mine, token)

    async def test_for_a_token_ahead_of_the_wallet(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDITS)
        sequence = (await served.wallet(user_id)).sequence
        ahead = ResumeTokens(PageTokens(SECRET), ManualClock()).make(user_id, sequence + 1)
        await self.assert_required(served, user_id, ahead)

    async def test_for_a_token_that_is_too_old(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet(CREDITS)
        async with watching(clocked, user_id) as watch:
            token = (await watch.next()).resume_token
        manual_clock.advance(MAX_TOKEN_AGE_MS)
        async with watching(clocked, user_id, token) as watch:
            assert (await watch.next()).HasField("bookmark")
        manual_clock.advance(1)
        await self.assert_required(clocked, user_id, token)


class TestEnds:
    async def test_without_a_wallet(self, served: Served) -> None:
        async with watching(served, new_user()) as watch:
            with refused("WALLET_NOT_FOUND"):
                await watch.next()

    async def test_when_the_server_goes_away(
        self, mongo_url: str, mongo_client: MongoClient
    ) -> None:
        async with AsyncExitStack() as clients, AsyncExitStack() as life:
            server = await life.enter_async_context(serving(mongo_url, "test_watch_drain"))
            user_id = await server.new_wallet(CREDITS)
            watches = [
                await clients.enter_async_context(watching(server, user_id)) for _ in range(2)
            ]
            for watch in watches:
                await watch.next()
            endings = asyncio.gather(*map(_ending, watches))
            await life.aclose()
            assert await soon(endings) == ["DRAINING", "DRAINING"]
        await mongo_client.drop_database("test_watch_drain")

    async def test_when_its_key_is_revoked(self, served: Served, mongo_url: str) -> None:
        user_id = await served.new_wallet(CREDITS)
        key = await make_key(mongo_url, DATABASE, "watcher", ["wallet.read"])
        key_id = key.split("_")[1]
        async with connected(served.target, key) as partner, watching(partner, user_id) as watch:
            await watch.next()
            await served.auth.RevokeApiKey(auth_service_pb2.RevokeApiKeyRequest(id=key_id))
            with refused("API_KEY_REVOKED"):
                while True:
                    await watch.next()


async def _ending(watch: Watch) -> str:
    try:
        while True:
            await watch.next()
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
