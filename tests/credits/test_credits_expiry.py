"""Expiry of grants, by a clock that the test moves."""

from typing import Any

from bson import ObjectId
from zaaz.ledger.v1 import credits_transaction_pb2 as types
from zaaz.ledger.v1.wallet_pb2 import OVERDRAFT_POLICY_CARRY_DEBT, Wallet
from zaaz.wallet.v1 import wallet_service_pb2

from tests.conftest import MongoClient
from tests.ledger.calls import PRICE, at, refused
from tests.serving import ManualClock, Served, serving, usage_event

SECOND_MS = 1_000


async def expiring(served: Served, clock: ManualClock, *amounts: int) -> str:
    """The user of a wallet with such grants, one second apart in their expiry."""
    user_id = await served.new_wallet()
    for seconds, amount in enumerate(amounts, start=1):
        await served.grant(user_id, amount, expires_time=at(clock() + seconds * SECOND_MS))
    return user_id


def kinds(rows: list[Any]) -> list[int]:
    return [row.decrease_reason for row in rows]


class TestReads:
    async def test_show_the_expiry_before_any_write(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await expiring(clocked, manual_clock, 5, 7)
        written = await clocked.wallet(user_id)
        manual_clock.advance(SECOND_MS - 1)
        assert await clocked.wallet(user_id) == written
        manual_clock.advance(1)
        seen = await clocked.wallet(user_id)
        assert (seen.credits_micros, seen.available_micros) == (7, 7)
        assert [grant.remaining_micros for grant in seen.grants] == [7]
        # No entry has been made, so what the entries determine has not moved.
        assert (seen.sequence, seen.chain) == (written.sequence, written.chain)
        assert len(await clocked.transactions(user_id)) == 2
        await clocked.assert_sound(user_id)

    async def test_lists_show_it_too(self, clocked: Served, manual_clock: ManualClock) -> None:
        user_id = await expiring(clocked, manual_clock, 5)
        manual_clock.advance(SECOND_MS)
        page = await clocked.wallets.ListWallets(wallet_service_pb2.ListWalletsRequest())
        assert [(w.user_id, w.credits_micros) for w in page.wallets] == [(user_id, 0)]


class TestWrites:
    async def test_the_next_one_makes_the_entries_once(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await expiring(clocked, manual_clock, 5, 7, 11)
        manual_clock.advance(2 * SECOND_MS)
        await clocked.consume(user_id, 1)
        await clocked.consume(user_id, 1)
        rows = await clocked.transactions(user_id)
        expiry, consumption = types.DECREASE_REASON_EXPIRY, types.DECREASE_REASON_CONSUMPTION
        assert kinds(rows) == [0, 0, 0, expiry, expiry, consumption, consumption]
        assert [row.credits_micros for row in rows[3:]] == [5, 7, 1, 1]
        first = rows[3]
        assert first.type == types.TRANSACTION_TYPE_DECREASE
        assert (first.counter_account, first.client_id) == ("breakage:expiry", "zaaz")
        assert first.request_id == ""
        assert [(m.grant_id, m.credits_micros) for m in first.grant_movements] == [(rows[0].id, -5)]
        # It happened when the grant ran out, and was written now.
        assert first.occurred_time == rows[0].grant_expires_time
        assert first.created_time == rows[5].created_time
        assert (await clocked.wallet(user_id)).credits_micros == 9
        await clocked.assert_sound(user_id)

    async def test_a_refused_one_leaves_nothing_behind(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await expiring(clocked, manual_clock, 5, 7)
        manual_clock.advance(SECOND_MS)
        with refused("INSUFFICIENT_CREDITS") as refusal:
            await clocked.consume(user_id, 8)
        assert refusal.metadata["available_micros"] == "7"
        assert len(await clocked.transactions(user_id)) == 2

    async def test_a_grant_spent_before_expires_without_an_entry(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await expiring(clocked, manual_clock, 5)
        await clocked.consume(user_id, 5)
        manual_clock.advance(SECOND_MS)
        await clocked.grant(user_id, 1)
        assert kinds(await clocked.transactions(user_id)) == [
            0,
            types.DECREASE_REASON_CONSUMPTION,
            0,
        ]

    async def test_survives_a_server_that_has_nothing_cached(
        self,
        clocked: Served,
        manual_clock: ManualClock,
        mongo_url: str,
        mongo_client: MongoClient,
    ) -> None:
        """Both servers see the same grant due; it expires once."""
        user_id = await expiring(clocked, manual_clock, 5)
        await clocked.grant(user_id, 20)
        manual_clock.advance(SECOND_MS)
        name = await _database_of(mongo_client, user_id)
        async with serving(mongo_url, name, manual_clock) as other:
            await other.consume(user_id, 1)
            await clocked.consume(user_id, 1)
        rows = await clocked.transactions(user_id)
        assert kinds(rows).count(types.DECREASE_REASON_EXPIRY) == 1
        assert (await clocked.wallet(user_id)).credits_micros == 18
        await clocked.assert_sound(user_id)


class TestUsage:
    async def test_is_billed_from_what_has_not_expired(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await expiring(clocked, manual_clock, PRICE, PRICE + 3)
        manual_clock.advance(SECOND_MS)
        event = usage_event(user_id, occurred_ms=manual_clock())
        (result,) = await clocked.record(event)
        assert result.receipt.balance_after_micros == 3
        assert result.receipt.shortfall_micros == 0
        await clocked.assert_sound(user_id)

    async def test_of_a_wallet_with_nothing_left_is_recorded_as_shortfall(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await expiring(clocked, manual_clock, PRICE)
        manual_clock.advance(SECOND_MS)
        # Used while the grant was there; settled, and so paid, when it was not.
        event = usage_event(user_id, occurred_ms=manual_clock() - SECOND_MS // 2)
        (result,) = await clocked.record(event)
        assert result.receipt.shortfall_micros == PRICE
        wallet = await clocked.wallet(user_id)
        assert (wallet.credits_micros, wallet.debt_micros, wallet.sequence) == (0, 0, 3)
        await clocked.assert_sound(user_id)


class TestDebt:
    async def test_is_repaid_by_the_next_grants_first(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet(40)
        await clocked.wallets.UpdateWallet(
            wallet_service_pb2.UpdateWalletRequest(
                wallet=Wallet(user_id=user_id, overdraft_policy=OVERDRAFT_POLICY_CARRY_DEBT)
            )
        )
        (result,) = await clocked.record(usage_event(user_id, occurred_ms=manual_clock()))
        assert result.receipt.shortfall_micros == 0
        debt = PRICE - 40
        wallet = await clocked.wallet(user_id)
        assert (wallet.credits_micros, wallet.debt_micros) == (-debt, debt)
        assert (wallet.available_micros, list(wallet.grants)) == (0, [])
        with refused("INSUFFICIENT_CREDITS") as refusal:
            await clocked.consume(user_id, 1)
        assert refusal.metadata["available_micros"] == "0"
        part = await clocked.grant(user_id, debt - 1)
        assert part.transaction.credits_micros == debt - 1
        assert not part.transaction.grant_movements
        assert (part.wallet.credits_micros, part.wallet.debt_micros) == (-1, 1)
        rest = await clocked.grant(user_id, 10, expires_time=at(manual_clock() + SECOND_MS))
        (grant,) = rest.wallet.grants
        assert (grant.original_micros, grant.remaining_micros) == (10, 9)
        assert (rest.wallet.credits_micros, rest.wallet.debt_micros) == (9, 0)
        manual_clock.advance(SECOND_MS)
        assert (await clocked.wallet(user_id)).credits_micros == 0
        await clocked.grant(user_id, 1)
        assert (await clocked.transactions(user_id))[-2].credits_micros == 9
        await clocked.assert_sound(user_id)


async def _database_of(client: MongoClient, user_id: str) -> str:
    for name in await client.list_database_names():
        if await client[name]["user_wallets"].find_one({"user_id": ObjectId(user_id)}):
            return name
    raise LookupError(user_id)
