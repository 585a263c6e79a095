"""Watches of their own on a real server's database: what they share, skip and refuse."""

import asyncio

import pytest
from bson import ObjectId

from server.kernel.errors import DomainError
from server.ledger.refusals import unavailable
from server.ledger.store import WALLETS
from server.mongo.database import Database
from tests.conftest import MongoClient
from tests.ledger.calls import soon
from tests.serving import Served, new_user
from tests.wallet.watching import Follower, Watches, assert_ranges

CREDITS = 1_000_000
SOON_SECONDS = 0.05


@pytest.fixture
def ledger(served: Served, mongo_client: MongoClient) -> Database:
    """The database that `served` writes to."""
    return Database(mongo_client, "test_served")


async def ending(follower: Follower) -> str:
    """The reason that the watch ended with."""
    with pytest.raises(DomainError) as caught:
        await soon(follower.task)
    return caught.value.reason


class TestSharing:
    async def test_a_thousand_watchers_cost_one_reader(
        self, served: Served, ledger: Database
    ) -> None:
        user_id = await served.new_wallet(CREDITS)
        watches = Watches(ledger)
        async with watches.running(sweeping=False):
            followers = [watches.follow(user_id) for _ in range(1_000)]
            for follower in followers:
                await follower.until_told(1)
            assert watches.store.readings <= 2
            assert len(watches.heard) == 1
            before = watches.store.readings

            sequence = (await served.consume(user_id, 1)).transaction.sequence
            watches.heard[user_id]()
            for follower in followers:
                await follower.until_at(sequence)
                # The same message, not one like it.
                assert follower.told[-1] is followers[0].told[-1]
            assert watches.store.readings == before + 1
            for follower in followers:
                await follower.leave()
            assert not watches.heard

    async def test_who_is_cancelled_takes_nobody_along(
        self, served: Served, ledger: Database
    ) -> None:
        user_id = await served.new_wallet(CREDITS)
        watches = Watches(ledger)
        # Both wait for the first reading, which nobody does yet.
        one, other = watches.follow(user_id), watches.follow(user_id)
        await asyncio.sleep(0)
        await one.leave()
        async with watches.running():
            await other.until_told(1)
            await other.leave()

    async def test_many_wallets_are_read_together(self, served: Served, ledger: Database) -> None:
        users = [await served.new_wallet(CREDITS) for _ in range(20)]
        watches = Watches(ledger)
        followers = [watches.follow(user_id) for user_id in users]
        await asyncio.sleep(0)
        async with watches.running(sweeping=False):
            for follower, user_id in zip(followers, users, strict=True):
                await follower.until_told(1)
                assert follower.told[0].snapshot.user_id == user_id
            assert watches.store.readings == 1
            for follower in followers:
                await follower.leave()


class TestChanges:
    async def test_are_found_though_nobody_tells(self, served: Served, ledger: Database) -> None:
        user_id = await served.new_wallet(CREDITS)
        watches = Watches(ledger)
        async with watches.running():
            follower = watches.follow(user_id)
            await follower.until_told(1)
            start = follower.told[0].snapshot.sequence
            for number in range(1, 6):
                await served.consume(user_id, 1)
                await follower.until_at(start + number)
            assert_ranges(follower.changes, start, start + 5)
            await follower.leave()

    async def test_that_come_between_reading_and_listening_are_not_lost(
        self, served: Served, ledger: Database
    ) -> None:
        user_id = await served.new_wallet(CREDITS)
        watches = Watches(ledger)
        async with watches.running(sweeping=False):
            for _ in range(20):
                # Committed, and told of, at any moment of the beginning.
                spending = asyncio.create_task(served.consume(user_id, 1))
                follower = watches.follow(user_id)
                sequence = (await spending).transaction.sequence
                watches.heard[user_id]()
                await follower.until_told(1)
                start = follower.told[0].snapshot.sequence
                if start < sequence:
                    await follower.until_at(sequence)
                    assert_ranges(follower.changes, start, sequence)
                await follower.leave()

    async def test_of_a_burst_come_to_a_slow_reader_as_one(
        self, served: Served, ledger: Database
    ) -> None:
        user_id = await served.new_wallet(CREDITS)
        watches = Watches(ledger)
        async with watches.running():
            slow, quick = watches.follow(user_id), watches.follow(user_id)
            await asyncio.gather(slow.until_told(1), quick.until_told(1))
            start = slow.told[0].snapshot.sequence
            slow.gate.clear()
            for number in range(1, 11):
                await served.consume(user_id, 1)
                await quick.until_at(start + number)
            assert len(quick.changes) == 10
            # It was taken before the gate was shut, or when the first change came.
            assert len(slow.changes) <= 1
            slow.gate.set()
            await slow.until_at(start + 10)
            assert len(slow.changes) <= 2
            for follower in (slow, quick):
                assert_ranges(follower.changes, start, start + 10)
                assert follower.changes[-1].credits_micros == CREDITS - 10
                await follower.leave()

    async def test_of_settings_are_no_transactions(self, served: Served, ledger: Database) -> None:
        user_id = await served.new_wallet(CREDITS)
        watches = Watches(ledger)
        async with watches.running():
            follower = watches.follow(user_id)
            await follower.until_told(1)
            rows = ledger.collection(WALLETS)
            touched = {"$inc": {"version": 1, "settings_version": 1}}
            await rows.update_one({"user_id": ObjectId(user_id)}, touched)
            await watches.store.read_again()
            sequence = (await served.consume(user_id, 1)).transaction.sequence
            await follower.until_at(sequence)
            assert len(follower.told) == 2
            await follower.leave()


class TestBookmarks:
    async def test_keep_an_idle_token_fresh(self, served: Served, ledger: Database) -> None:
        user_id = await served.new_wallet(CREDITS)
        watches = Watches(ledger, bookmark_seconds=SOON_SECONDS)
        async with watches.running():
            follower = watches.follow(user_id)
            await follower.until_told(4)
            first, *bookmarks = follower.told
            for response in bookmarks:
                assert response.bookmark.sequence == first.snapshot.sequence
                assert response.resume_token != first.resume_token
                sequence = watches.tokens.read(user_id, response.resume_token)
                assert sequence == first.snapshot.sequence
            await follower.leave()

    async def test_are_given_to_all(self, served: Served, ledger: Database) -> None:
        user_id = await served.new_wallet(CREDITS)
        watches = Watches(ledger, bookmark_seconds=SOON_SECONDS)
        async with watches.running():
            followers = [watches.follow(user_id) for _ in range(3)]
            for follower in followers:
                await follower.until_told(3)
                await follower.leave()


class TestRefusals:
    async def test_more_than_may_watch(self, served: Served, ledger: Database) -> None:
        user_id = await served.new_wallet(CREDITS)
        watches = Watches(ledger, max_watchers=2)
        async with watches.running():
            first, second = watches.follow(user_id), watches.follow(user_id)
            await asyncio.gather(first.until_told(1), second.until_told(1))
            assert await ending(watches.follow(user_id)) == "TOO_MANY_WATCHERS"
            await first.leave()
            third = watches.follow(user_id)
            await third.until_told(1)
            for follower in (second, third):
                await follower.leave()

    async def test_who_is_refused_leaves_nothing_behind(self, ledger: Database) -> None:
        watches = Watches(ledger, max_watchers=1)
        async with watches.running():
            for _ in range(3):
                assert await ending(watches.follow(new_user())) == "WALLET_NOT_FOUND"
        assert not watches.heard

    async def test_who_comes_while_it_is_found_out(self, ledger: Database) -> None:
        user_id = new_user()
        watches = Watches(ledger)
        watches.store.gate.clear()
        async with watches.running():
            first = watches.follow(user_id)
            await soon(watches.store.reading.wait())
            second = watches.follow(user_id)
            await asyncio.sleep(0)
            watches.store.gate.set()
            for follower in (first, second):
                assert await ending(follower) == "WALLET_NOT_FOUND"
        assert not watches.heard

    async def test_a_wallet_that_goes_back(self, served: Served, ledger: Database) -> None:
        user_id = await served.new_wallet(CREDITS)
        await served.consume(user_id, 1)
        watches = Watches(ledger)
        async with watches.running():
            follower = watches.follow(user_id)
            await follower.until_told(1)
            sequence = follower.told[0].snapshot.sequence
            # As a backup that is restored while the server runs.
            rows = ledger.collection(WALLETS)
            restored = {"$inc": {"sequence": -1, "version": -1}}
            await rows.update_one({"user_id": ObjectId(user_id)}, restored)
            assert await ending(follower) == "RESYNC_REQUIRED"
            again = watches.follow(user_id)
            await again.until_told(1)
            assert again.told[0].snapshot.sequence == sequence - 1
            ahead = follower.told[0].resume_token
            assert await ending(watches.follow(user_id, ahead)) == "RESYNC_REQUIRED"
            await again.leave()

    async def test_a_wallet_that_is_gone(self, served: Served, ledger: Database) -> None:
        user_id = await served.new_wallet()
        watches = Watches(ledger)
        async with watches.running():
            follower = watches.follow(user_id)
            await follower.until_told(1)
            await ledger.collection(WALLETS).delete_one({"user_id": ObjectId(user_id)})
            assert await ending(follower) == "WALLET_NOT_FOUND"

    async def test_while_the_database_is_away(self, served: Served, ledger: Database) -> None:
        user_id = await served.new_wallet(CREDITS)
        watches = Watches(ledger)
        async with watches.running():
            early = watches.follow(user_id)
            await early.until_told(1)
            watches.store.failure = unavailable()
            assert await ending(watches.follow(user_id)) == "DEPENDENCY_UNAVAILABLE"
            # Who watches already waits, and misses nothing.
            sequence = (await served.consume(user_id, 1)).transaction.sequence
            watches.store.failure = None
            await early.until_at(sequence)
            assert_ranges(early.changes, sequence - 1, sequence)
            await early.leave()

    async def test_when_the_server_goes_away(self, served: Served, ledger: Database) -> None:
        user_id = await served.new_wallet(CREDITS)
        watches = Watches(ledger)
        async with watches.running():
            follower = watches.follow(user_id)
            await follower.until_told(1)
            watches.draining.set()
            assert await ending(follower) == "DRAINING"
            assert await ending(watches.follow(user_id)) == "DRAINING"
