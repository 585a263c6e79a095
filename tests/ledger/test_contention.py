"""A rival that keeps changing a wallet, and a queue that is full: who is told, and who is not."""

import asyncio
from typing import Any

import pytest
from bson import ObjectId
from zaaz.credits.v1 import credits_service_pb2 as pb
from zaaz.ledger.v1 import wallet_pb2
from zaaz.wallet.v1 import wallet_service_pb2

from server.ledger import store
from server.ledger.store import WALLETS, LedgerStore, Writes
from server.mongo.transaction import Tx
from tests.conftest import MongoClient
from tests.ledger.calls import PRICE, Ingest, reasons, refused, soon
from tests.serving import Served, new_key, new_user, usage_event


@pytest.fixture(params=[1, 1_000_000], ids=["versions read", "versions in filters"])
def contended(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> set[ObjectId]:
    """Users whose wallets a rival changes whenever a write of them is about to begin."""
    monkeypatch.setattr("server.ledger.store.READ_VERSIONS_FROM", request.param)
    users: set[ObjectId] = set()
    write = LedgerStore.write

    async def too_late(self: LedgerStore, writes: Writes) -> None:
        for update in writes.wallets:
            if update.user_id in users:
                rival = self._database.collection(WALLETS)
                await rival.update_one({"_id": update.id}, {"$inc": {"version": 1}})
        await write(self, writes)

    monkeypatch.setattr(LedgerStore, "write", too_late)
    return users


def consumption(user_id: str) -> pb.ConsumeCreditsRequest:
    return pb.ConsumeCreditsRequest(request_id=new_key(), user_id=user_id, credits_micros=1)


async def test_a_change_after_versions_were_read_is_not_overwritten(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the reading of versions and the updates by _id, a grant of another process comes."""
    user_id = await served.new_wallet(10)
    monkeypatch.setattr("server.ledger.store.READ_VERSIONS_FROM", 1)
    update_guarded, rivals, tries = store._update_guarded, [7], 0

    async def late(tx: Tx, collection: str, updates: list[Any]) -> None:
        nonlocal tries
        tries += collection == WALLETS
        if collection == WALLETS and rivals:
            rows = tx._database[WALLETS]
            change = {"$inc": {"version": 1, "low_balance_threshold_micros": rivals.pop()}}
            changed = await rows.update_one({"user_id": ObjectId(user_id)}, change)
            assert changed.modified_count == 1
        await update_guarded(tx, collection, updates)

    monkeypatch.setattr(store, "_update_guarded", late)

    await served.credits.ConsumeCredits(consumption(user_id))

    wallet = await served.wallet(user_id)
    assert (wallet.credits_micros, wallet.low_balance_threshold_micros) == (9, 7)
    assert tries == 2, "lost to the rival, then written on top of what it left"


class TestContendedWallet:
    async def test_only_its_callers_are_told(
        self, served: Served, contended: set[ObjectId]
    ) -> None:
        users = [await served.new_wallet(10) for _ in range(5)]
        contended.add(ObjectId(users[2]))
        requests = [consumption(user_id) for user_id in (*users, users[2], users[0])]
        answer = await served.credits.BatchConsumeCredits(
            pb.BatchConsumeCreditsRequest(requests=requests)
        )
        told = ["", "", "CONTENTION", "", "", "CONTENTION", ""]
        assert reasons(answer.results) == told
        contended.clear()
        # Under the same request_ids, as the reason promises.
        again = await served.credits.BatchConsumeCredits(
            pb.BatchConsumeCreditsRequest(requests=requests)
        )
        assert reasons(again.results) == [""] * 7
        left = [(await served.wallet(user_id)).credits_micros for user_id in users]
        assert left == [8, 9, 8, 9, 9]
        for user_id in users:
            await served.assert_sound(user_id)

    async def test_is_told_of_every_operation(
        self, served: Served, contended: set[ObjectId]
    ) -> None:
        user_id = await served.new_wallet(10)
        contended.add(ObjectId(user_id))
        with refused("CONTENTION") as refusal:
            await served.consume(user_id, 1)
        assert refusal.metadata == {"attempts": "3"}
        with refused("CONTENTION"):
            await served.grant(user_id, 1)
        with refused("CONTENTION"):
            await served.record(usage_event(user_id))
        with refused("CONTENTION"):
            wallet = wallet_pb2.Wallet(user_id=user_id, low_balance_threshold_micros=1)
            await served.wallets.UpdateWallet(wallet_service_pb2.UpdateWalletRequest(wallet=wallet))
        contended.clear()
        assert (await served.wallet(user_id)).credits_micros == 10

    async def test_rejects_one_frame_and_the_stream_goes_on(
        self, served: Served, contended: set[ObjectId]
    ) -> None:
        user_id = await served.new_wallet(PRICE)
        contended.add(ObjectId(user_id))
        stream, _ = await Ingest.opened(served, new_key())
        event = usage_event(user_id)
        stream.frame(0, event)
        rejected = await stream.answer("rejected")
        assert (rejected.offset, rejected.next_offset) == (0, 0)
        contended.clear()
        stream.frame(0, event)
        assert (await stream.answer("ack")).billed_events == 1
        await Ingest.close_all()


class TestOutdatedWallet:
    """Another process has written it since this one did."""

    async def test_is_not_what_a_refusal_rests_on(
        self, served: Served, mongo_client: MongoClient
    ) -> None:
        user_id = await served.new_wallet(5)
        rows = mongo_client["test_served"][WALLETS]
        row: dict[str, Any] = await rows.find_one({"user_id": ObjectId(user_id)}) or {}
        # Funded by another process, as far as this one can see.
        change = {"credits_micros": 10, "grants.0.remaining_micros": 10, "version": 1}
        await rows.update_one({"_id": row["_id"]}, {"$inc": change})
        answer = await served.consume(user_id, 15)
        assert answer.wallet.credits_micros == 0

    async def test_is_not_what_an_etag_is_held_against(
        self, served: Served, mongo_client: MongoClient
    ) -> None:
        user_id = await served.new_wallet(5)
        rows = mongo_client["test_served"][WALLETS]
        await rows.update_one(
            {"user_id": ObjectId(user_id)}, {"$inc": {"settings_version": 1, "version": 1}}
        )
        etag = (await served.wallet(user_id)).etag
        wallet = wallet_pb2.Wallet(user_id=user_id, low_balance_threshold_micros=1, etag=etag)
        request = wallet_service_pb2.UpdateWalletRequest(wallet=wallet)
        assert (await served.wallets.UpdateWallet(request)).wallet.etag == "3"


class TestFullQueue:
    async def test_refuses_calls(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        user_id = await served.new_wallet(10 * PRICE)
        monkeypatch.setattr("server.ledger.queue.MAX_QUEUED_ENTRIES", 1)
        with refused("OVERLOADED") as refusal:
            await served.record(usage_event(user_id), usage_event(user_id))
        assert refusal.metadata == {"queue": "ledger", "limit": "1"}
        # One fits.
        await served.record(usage_event(user_id))
        assert (await served.wallet(user_id)).credits_micros == 9 * PRICE

    async def test_throttles_streams_and_takes_their_frames_once_there_is_room(
        self, served: Served
    ) -> None:
        user_id = await served.new_wallet(10 * PRICE)
        stream, _ = await Ingest.opened(served, new_key())
        with pytest.MonkeyPatch.context() as full:
            full.setattr("server.ledger.queue.MAX_QUEUED_ENTRIES", 1)
            stream.frame(0, usage_event(user_id), usage_event(user_id))
            throttle = await stream.answer("throttle")
            assert throttle.retry_delay.ToMilliseconds() > 0
        # Whatever passes through the queue makes the stream look again.
        await served.consume(user_id, PRICE)
        assert (await stream.answer("ack")).billed_events == 2
        assert (await served.wallet(user_id)).credits_micros == 7 * PRICE
        await Ingest.close_all()


class TestCallersThatGoAway:
    async def test_nothing_is_done_by_halves(self, served: Served) -> None:
        users = [await served.new_wallet(10, new_user()) for _ in range(4)]

        async def leave(user_id: str) -> None:
            calling = served.credits.ConsumeCredits(consumption(user_id))
            await asyncio.sleep(0)
            calling.cancel()

        await asyncio.gather(*(leave(user_id) for user_id in users for _ in range(10)))
        for user_id in users:
            wallet = (await soon(served.consume(user_id, 1))).wallet
            spent = 10 - wallet.credits_micros
            assert spent == wallet.sequence - 1
            await served.assert_sound(user_id)
