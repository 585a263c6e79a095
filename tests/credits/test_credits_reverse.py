"""ReverseCreditsTransaction, on a real server."""

from typing import Any

import pytest
from bson import ObjectId
from zaaz.credits.v1 import credits_service_pb2 as pb
from zaaz.ledger.v1 import credits_transaction_pb2 as types
from zaaz.ledger.v1 import wallet_pb2
from zaaz.ledger.v1.grant_pb2 import INCREASE_SOURCE_REVERSAL
from zaaz.wallet.v1 import wallet_service_pb2

from tests.ledger.calls import PRICE, at, refused
from tests.serving import ManualClock, Served, new_key, usage_event


async def reverse(served: Served, transaction_id: str, **fields: Any) -> Any:
    return await served.credits.ReverseCreditsTransaction(
        pb.ReverseCreditsTransactionRequest(
            id=transaction_id, **{"request_id": new_key(), **fields}
        )
    )


async def carry_debt(served: Served, user_id: str) -> None:
    wallet = wallet_pb2.Wallet(
        user_id=user_id, overdraft_policy=wallet_pb2.OVERDRAFT_POLICY_CARRY_DEBT
    )
    await served.wallets.UpdateWallet(wallet_service_pb2.UpdateWalletRequest(wallet=wallet))


def left(wallet: wallet_pb2.Wallet) -> dict[str, int]:
    return {grant.id: grant.remaining_micros for grant in wallet.grants}


class TestOfADecrease:
    async def test_returns_to_the_grants_that_it_burned(self, served: Served) -> None:
        user_id = await served.new_wallet()
        first = (await served.grant(user_id, 10)).transaction.id
        second = (await served.grant(user_id, 10, priority=1)).transaction.id
        before = await served.wallet(user_id)
        consumed = (await served.consume(user_id, 15)).transaction
        answer = await reverse(served, consumed.id, reason="a mistake")
        made = answer.transaction
        assert made.type == types.TRANSACTION_TYPE_INCREASE
        assert made.increase_source == INCREASE_SOURCE_REVERSAL
        assert (made.credits_micros, made.reverses_id) == (15, consumed.id)
        assert (made.reason, made.counter_account) == ("a mistake", "revenue:consumption")
        assert {m.grant_id: m.credits_micros for m in made.grant_movements} == {
            first: 10,
            second: 5,
        }
        assert list(answer.wallet.grants) == list(before.grants)
        assert answer.wallet == await served.wallet(user_id)
        await served.assert_sound(user_id)

    async def test_of_usage_gives_back_what_was_taken_and_no_shortfall(
        self, served: Served
    ) -> None:
        user_id = await served.new_wallet(100)
        (result,) = await served.record(usage_event(user_id))
        assert result.receipt.shortfall_micros == PRICE - 100
        answer = await reverse(served, result.receipt.credits_transaction_id)
        assert (answer.transaction.credits_micros, answer.wallet.credits_micros) == (100, 100)
        await served.assert_sound(user_id)

    async def test_repays_the_debt_first(self, served: Served) -> None:
        user_id = await served.new_wallet(100)
        await carry_debt(served, user_id)
        consumed = (await served.consume(user_id, 100)).transaction
        await served.record(usage_event(user_id))
        answer = await reverse(served, consumed.id)
        assert answer.wallet.debt_micros == PRICE - 100
        assert answer.wallet.credits_micros == 100 - PRICE
        assert not answer.wallet.grants
        await served.assert_sound(user_id)

    async def test_of_usage_whose_debt_was_repaid_since_makes_a_grant(self, served: Served) -> None:
        user_id = await served.new_wallet(100)
        await carry_debt(served, user_id)
        (result,) = await served.record(usage_event(user_id))
        await served.grant(user_id, PRICE)
        assert (await served.wallet(user_id)).credits_micros == 100
        answer = await reverse(served, result.receipt.credits_transaction_id)
        assert answer.wallet.credits_micros == 100 + PRICE
        assert left(answer.wallet)[answer.transaction.id] == PRICE - 100
        await served.assert_sound(user_id)

    async def test_that_burned_a_grant_which_has_expired_since(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        """The credits return to where they came from, and that is void: they expire at once."""
        user_id = await clocked.new_wallet()
        await clocked.grant(user_id, 10, expires_time=at(manual_clock() + 1_000))
        consumed = (await clocked.consume(user_id, 6)).transaction
        manual_clock.advance(2_000)
        await reverse(clocked, consumed.id)
        assert (await clocked.wallet(user_id)).credits_micros == 0
        with refused("INSUFFICIENT_CREDITS"):
            await clocked.consume(user_id, 1)
        await clocked.grant(user_id, 1)
        kinds = [row.decrease_reason for row in await clocked.transactions(user_id)]
        expiry, consumption = types.DECREASE_REASON_EXPIRY, types.DECREASE_REASON_CONSUMPTION
        assert kinds == [0, consumption, expiry, 0, expiry, 0]
        await clocked.assert_sound(user_id)


class TestOfAnIncrease:
    async def test_takes_the_grant_back(self, served: Served) -> None:
        user_id = await served.new_wallet(5)
        granted = (await served.grant(user_id, 10)).transaction
        answer = await reverse(served, granted.id)
        made = answer.transaction
        assert made.type == types.TRANSACTION_TYPE_DECREASE
        assert made.decrease_reason == types.DECREASE_REASON_REVERSAL
        assert (made.credits_micros, made.counter_account) == (10, granted.counter_account)
        assert [(m.grant_id, m.credits_micros) for m in made.grant_movements] == [(granted.id, -10)]
        assert granted.id not in left(answer.wallet)
        assert answer.wallet.credits_micros == 5
        await served.assert_sound(user_id)

    async def test_of_a_grant_partly_spent_takes_the_rest_from_others(self, served: Served) -> None:
        user_id = await served.new_wallet()
        granted = (await served.grant(user_id, 10)).transaction
        other = (await served.grant(user_id, 10, priority=1)).transaction
        await served.consume(user_id, 4)
        answer = await reverse(served, granted.id)
        assert left(answer.wallet) == {other.id: 6}
        await served.assert_sound(user_id)

    async def test_refuses_when_it_is_spent(self, served: Served) -> None:
        user_id = await served.new_wallet()
        granted = (await served.grant(user_id, 10)).transaction
        await served.consume(user_id, 4)
        with refused("INSUFFICIENT_CREDITS") as refusal:
            await reverse(served, granted.id)
        assert refusal.metadata["shortfall_micros"] == "4"
        assert (await served.wallet(user_id)).credits_micros == 6

    async def test_of_a_spent_grant_becomes_debt_where_debts_are_carried(
        self, served: Served
    ) -> None:
        user_id = await served.new_wallet()
        await carry_debt(served, user_id)
        granted = (await served.grant(user_id, 10)).transaction
        await served.consume(user_id, 4)
        wallet = (await reverse(served, granted.id)).wallet
        assert (wallet.credits_micros, wallet.debt_micros) == (-4, 4)
        assert not wallet.grants
        await served.assert_sound(user_id)


class TestOnce:
    async def test_a_replay_returns_the_first_result(self, served: Served) -> None:
        user_id, request_id = await served.new_wallet(), new_key()
        granted = (await served.grant(user_id, 10)).transaction
        first = await reverse(served, granted.id, request_id=request_id)
        assert await reverse(served, granted.id, request_id=request_id) == first
        with refused("REQUEST_ID_REUSED"):
            await reverse(served, granted.id, request_id=request_id, reason="another")

    @pytest.mark.parametrize("amount", [3, 10])
    async def test_a_second_reversal_is_refused(self, served: Served, amount: int) -> None:
        user_id = await served.new_wallet(10)
        consumed = (await served.consume(user_id, amount)).transaction
        reversal = (await reverse(served, consumed.id)).transaction
        with refused("ALREADY_REVERSED") as refusal:
            await reverse(served, consumed.id)
        assert refusal.metadata == {"reversal_id": reversal.id}
        assert (await served.wallet(user_id)).credits_micros == 10

    async def test_a_second_reversal_of_a_grant_is_refused_as_such(self, served: Served) -> None:
        """Not for the credits that the first one took."""
        user_id = await served.new_wallet()
        granted = (await served.grant(user_id, 10)).transaction
        await reverse(served, granted.id)
        with refused("ALREADY_REVERSED"):
            await reverse(served, granted.id)

    async def test_a_refused_reversal_may_be_tried_again(self, served: Served) -> None:
        user_id, request_id = await served.new_wallet(), new_key()
        granted = (await served.grant(user_id, 10)).transaction
        await served.consume(user_id, 4)
        with refused("INSUFFICIENT_CREDITS"):
            await reverse(served, granted.id, request_id=request_id)
        await served.grant(user_id, 4)
        await reverse(served, granted.id, request_id=request_id)
        assert (await served.wallet(user_id)).credits_micros == 0


class TestRefusals:
    async def test_of_a_reversal(self, served: Served) -> None:
        user_id = await served.new_wallet(10)
        consumed = (await served.consume(user_id, 3)).transaction
        back = (await reverse(served, consumed.id)).transaction
        granted = (await served.grant(user_id, 3)).transaction
        taken = (await reverse(served, granted.id)).transaction
        for reversal in (back, taken):
            with refused("NOT_REVERSIBLE") as refusal:
                await reverse(served, reversal.id)
            assert refusal.metadata == {"id": reversal.id}

    async def test_of_an_expiry(self, clocked: Served, manual_clock: ManualClock) -> None:
        user_id = await clocked.new_wallet()
        await clocked.grant(user_id, 10, expires_time=at(manual_clock() + 10))
        manual_clock.advance(10)
        await clocked.grant(user_id, 1)
        expiry = (await clocked.transactions(user_id))[1]
        assert expiry.decrease_reason == types.DECREASE_REASON_EXPIRY
        with refused("NOT_REVERSIBLE"):
            await reverse(clocked, expiry.id)

    async def test_of_a_grant_that_has_expired(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        """Its rest is void already; other grants would pay for it a second time."""
        user_id = await clocked.new_wallet(5)
        granted = await clocked.grant(user_id, 10, expires_time=at(manual_clock() + 10))
        manual_clock.advance(10)
        with refused("NOT_REVERSIBLE"):
            await reverse(clocked, granted.transaction.id)
        assert (await clocked.wallet(user_id)).credits_micros == 5
        await clocked.assert_sound(user_id)

    async def test_of_what_does_not_exist(self, served: Served) -> None:
        missing = str(ObjectId())
        with refused("TRANSACTION_NOT_FOUND") as refusal:
            await reverse(served, missing)
        assert refusal.metadata == {"id": missing}

    async def test_of_no_id_and_without_a_request_id(self, served: Served) -> None:
        with refused("MALFORMED_ID"):
            await reverse(served, "it")
        with refused("FIELD_INVALID"):
            await reverse(served, str(ObjectId()), request_id="")

    async def test_of_more_grants_than_a_wallet_holds(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("server.ledger.posting.MAX_GRANTS", 3)
        user_id = await served.new_wallet()
        for _ in range(3):
            await served.grant(user_id, 1)
        consumed = (await served.consume(user_id, 3)).transaction
        for _ in range(3):
            await served.grant(user_id, 1)
        with refused("TOO_MANY_GRANTS"):
            await reverse(served, consumed.id)
        await served.consume(user_id, 3)
        await reverse(served, consumed.id)
        assert len((await served.wallet(user_id)).grants) == 3
        await served.assert_sound(user_id)
