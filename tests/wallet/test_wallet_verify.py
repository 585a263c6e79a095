"""VerifyWallet: whatever is changed behind the ledger's back is named by its place."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import ObjectId
from zaaz.ledger.v1 import wallet_pb2
from zaaz.wallet.v1 import wallet_service_pb2 as pb

from server.mongo.database import Database
from tests.conftest import MongoClient
from tests.ledger.calls import PRICE, at, refused
from tests.serving import ManualClock, Served, new_user, usage_event

EARLIER = datetime(2020, 1, 1, tzinfo=UTC)


class Row:
    """A wallet's rows, to be tampered with.

    Its entries: 1 a grant that expires, 2 a grant, 3 a usage, 4 a consumption, 5 a grant.
    """

    def __init__(self, database: Database, user_id: str, grants: list[str]) -> None:
        self._wallets = database.collection("user_wallets")
        self._entries = database.collection("credits_transactions")
        self._user = {"user_id": ObjectId(user_id)}
        self.grants = grants

    async def wallet(self, change: dict[str, Any]) -> None:
        result = await self._wallets.update_one(self._user, change)
        assert result.modified_count == 1

    async def entry(self, sequence: int, change: dict[str, Any]) -> None:
        result = await self._entries.update_one({**self._user, "sequence": sequence}, change)
        assert result.modified_count == 1

    async def drop(self, sequence: int) -> None:
        result = await self._entries.delete_one({**self._user, "sequence": sequence})
        assert result.deleted_count == 1

    async def swap(self, one: int, other: int) -> None:
        for before, after in ((one, 0), (other, one), (0, other)):
            await self.entry(before, {"$set": {"sequence": after}})


@pytest.fixture
async def row(served: Served, mongo_client: MongoClient) -> tuple[str, Row]:
    user_id = await served.new_wallet()
    soon = at(int(datetime.now(UTC).timestamp() * 1_000) + 3_600_000)
    grants = [(await served.grant(user_id, 3 * PRICE, expires_time=soon)).transaction.id]
    grants += [(await served.grant(user_id, PRICE)).transaction.id]
    await served.record(usage_event(user_id, labels={"a": "b"}))
    await served.consume(user_id, 7)
    grants += [(await served.grant(user_id, 5, priority=1)).transaction.id]
    return user_id, Row(Database(mongo_client, "test_served"), user_id, grants)


async def differences(served: Served, user_id: str) -> dict[tuple[int, str], tuple[str, str]]:
    answer = await served.wallets.VerifyWallet(pb.VerifyWalletRequest(user_id=user_id))
    return {(d.sequence, d.field): (d.expected, d.actual) for d in answer.differences}


class TestSound:
    async def test_finds_nothing_and_says_how_much_was_read(
        self, served: Served, row: tuple[str, Row]
    ) -> None:
        user_id, _ = row
        answer = await served.wallets.VerifyWallet(pb.VerifyWalletRequest(user_id=user_id))
        assert not answer.differences
        assert answer.transactions_checked == 5

    async def test_a_wallet_without_entries_is_sound(self, served: Served) -> None:
        await served.assert_sound(await served.new_wallet())

    async def test_what_is_due_and_has_no_entry_yet_is_no_difference(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet()
        await clocked.grant(user_id, 5, expires_time=at(manual_clock() + 1))
        manual_clock.advance(1)
        await clocked.assert_sound(user_id)

    async def test_debt_is_none_either(self, served: Served) -> None:
        user_id = await served.new_wallet(1)
        wallet = wallet_pb2.Wallet(
            user_id=user_id, overdraft_policy=wallet_pb2.OVERDRAFT_POLICY_CARRY_DEBT
        )
        await served.wallets.UpdateWallet(pb.UpdateWalletRequest(wallet=wallet))
        await served.record(usage_event(user_id))
        await served.assert_sound(user_id)
        await served.grant(user_id, 2)
        await served.assert_sound(user_id)

    async def test_refuses_who_has_no_wallet(self, served: Served) -> None:
        with refused("WALLET_NOT_FOUND"):
            await differences(served, new_user())
        with refused("MALFORMED_ID"):
            await differences(served, "x")


Tampering = Callable[[Row], Awaitable[None]]

ENTRIES: dict[str, tuple[Tampering, set[tuple[int, str]]]] = {
    "amount": (
        lambda row: row.entry(3, {"$inc": {"signed_micros": 1}}),
        {(3, "balance_after_micros"), (3, "debt_after_micros"), (3, "chain")},
    ),
    "amount and balance": (
        lambda row: row.entry(4, {"$inc": {"signed_micros": 1, "balance_after_micros": 1}}),
        {(4, "debt_after_micros"), (4, "chain"), (5, "balance_after_micros")},
    ),
    "what a grant lost": (
        lambda row: row.entry(3, {"$inc": {"grant_movements.0.credits_micros": 1}}),
        {(3, "debt_after_micros"), (3, "chain")},
    ),
    "tokens": (lambda row: row.entry(3, {"$inc": {"usage.input_tokens": -1}}), {(3, "chain")}),
    "labels": (lambda row: row.entry(3, {"$set": {"usage.labels.a": "c"}}), {(3, "chain")}),
    "time": (lambda row: row.entry(4, {"$set": {"created_time": EARLIER}}), {(4, "chain")}),
    "client": (lambda row: row.entry(4, {"$set": {"client_id": "x"}}), {(4, "chain")}),
    "request": (lambda row: row.entry(4, {"$set": {"cause.request_id": "x"}}), {(4, "chain")}),
    "account": (lambda row: row.entry(4, {"$set": {"counter_account": "x"}}), {(4, "chain")}),
    "chain": (
        lambda row: row.entry(4, {"$set": {"chain": bytes(32)}}),
        {(4, "chain"), (5, "chain")},
    ),
    "dropped first": (
        lambda row: row.drop(1),
        {(1, "sequence"), (1, "balance_after_micros"), (1, "chain"), (0, "sequence")},
    ),
    "dropped": (
        lambda row: row.drop(3),
        {(3, "sequence"), (3, "balance_after_micros"), (3, "chain"), (0, "sequence")},
    ),
    "dropped last": (
        lambda row: row.drop(5),
        {(0, "sequence"), (0, "credits_micros"), (0, "chain")},
    ),
    "swapped": (
        lambda row: row.swap(3, 4),
        {(3, "balance_after_micros"), (3, "chain"), (4, "chain"), (5, "chain")},
    ),
}

WALLET: dict[str, tuple[Tampering, Callable[[Row], set[str]]]] = {
    "balance": (
        lambda row: row.wallet({"$inc": {"credits_micros": 1}}),
        lambda _: {"credits_micros", "grants less debt"},
    ),
    "debt": (
        lambda row: row.wallet({"$inc": {"debt_micros": 1}}),
        lambda _: {"debt_micros", "grants less debt"},
    ),
    "held": (
        lambda row: row.wallet({"$inc": {"held_micros": 1}}),
        lambda _: {"held_micros", "sum of holds"},
    ),
    "chain": (lambda row: row.wallet({"$set": {"chain": bytes(32)}}), lambda _: {"chain"}),
    "sequence": (lambda row: row.wallet({"$inc": {"sequence": 1}}), lambda _: {"sequence"}),
    "grant": (
        lambda row: row.wallet({"$inc": {"grants.0.remaining_micros": 1}}),
        lambda row: {f"grants.{row.grants[0]}.remaining_micros", "grants less debt"},
    ),
    "grants with each other": (
        lambda row: row.wallet(
            {"$inc": {"grants.0.remaining_micros": 1, "grants.1.remaining_micros": -1}}
        ),
        lambda row: {f"grants.{row.grants[n]}.remaining_micros" for n in (0, 1)},
    ),
    "expiry": (
        lambda row: row.wallet({"$set": {"grants.0.expires_time": None}}),
        lambda row: {f"grants.{row.grants[0]}.expires_time"},
    ),
    "priority": (
        lambda row: row.wallet({"$set": {"grants.2.priority": 0}}),
        lambda row: {f"grants.{row.grants[2]}.priority"},
    ),
    "what it was made with": (
        lambda row: row.wallet({"$inc": {"grants.1.original_micros": 1}}),
        lambda row: {f"grants.{row.grants[1]}.original_micros"},
    ),
    "source": (
        lambda row: row.wallet({"$set": {"grants.1.source": 1}}),
        lambda row: {f"grants.{row.grants[1]}.source"},
    ),
    "age": (
        lambda row: row.wallet({"$inc": {"grants.1.sequence": 7}}),
        lambda row: {f"grants.{row.grants[1]}.sequence"},
    ),
    "dropped grant": (
        lambda row: row.wallet({"$pop": {"grants": 1}}),
        lambda row: {f"grants.{row.grants[2]}.remaining_micros", "grants less debt"},
    ),
}


class TestTampered:
    @pytest.mark.parametrize("what", ENTRIES)
    async def test_entries_are_named(self, served: Served, row: tuple[str, Row], what: str) -> None:
        user_id, rows = row
        tamper, expected = ENTRIES[what]
        await tamper(rows)
        found = await differences(served, user_id)
        assert expected <= found.keys()
        # Those before it are as they were.
        first = min((sequence for sequence, _ in expected if sequence), default=6)
        assert all(not 0 < sequence < first for sequence, _ in found)
        assert all(wanted != actual for wanted, actual in found.values())

    @pytest.mark.parametrize("what", WALLET)
    async def test_the_wallet_is_named(
        self, served: Served, row: tuple[str, Row], what: str
    ) -> None:
        user_id, rows = row
        tamper, expected = WALLET[what]
        await tamper(rows)
        assert set(await differences(served, user_id)) == {(0, field) for field in expected(rows)}

    async def test_tells_what_should_be_and_what_is(
        self, served: Served, row: tuple[str, Row]
    ) -> None:
        user_id, rows = row
        await rows.wallet({"$inc": {"credits_micros": 1}})
        balance = 3 * PRICE - 7 + 5
        found = await differences(served, user_id)
        assert found[0, "credits_micros"] == (str(balance), str(balance + 1))

    async def test_names_no_more_than_its_bound(
        self, served: Served, row: tuple[str, Row], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("server.ledger.verify.MAX_DIFFERENCES", 2)
        user_id, rows = row
        for sequence in range(1, 6):
            await rows.entry(sequence, {"$set": {"chain": bytes(32)}})
        assert len(await differences(served, user_id)) == 2
