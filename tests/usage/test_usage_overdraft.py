"""Usage that costs more than there is: it happened, so the wallet's policy says who pays."""

from typing import Any

from zaaz.ledger.v1 import wallet_pb2
from zaaz.wallet.v1 import wallet_service_pb2

from tests.ledger.calls import PRICE, at, reasons, refused
from tests.serving import ManualClock, Served, usage_event

INT64_MAX = 2**63 - 1


async def carry_debt(served: Served, user_id: str) -> None:
    wallet = wallet_pb2.Wallet(
        user_id=user_id, overdraft_policy=wallet_pb2.OVERDRAFT_POLICY_CARRY_DEBT
    )
    await served.wallets.UpdateWallet(wallet_service_pb2.UpdateWalletRequest(wallet=wallet))


async def bill(served: Served, user_id: str, count: int = 1, **fields: Any) -> list[Any]:
    results = await served.record(*(usage_event(user_id, **fields) for _ in range(count)))
    assert reasons(results) == [""] * count
    return [result.receipt for result in results]


def standing(wallet: wallet_pb2.Wallet) -> tuple[int, int, int]:
    return wallet.credits_micros, wallet.debt_micros, wallet.available_micros


class TestFloorAtZero:
    async def test_takes_what_there_is_and_records_the_shortfall(self, served: Served) -> None:
        user_id = await served.new_wallet(PRICE + 100)
        receipts = await bill(served, user_id, 3)
        assert [(r.credits_micros, r.shortfall_micros) for r in receipts] == [
            (PRICE, 0),
            (PRICE, PRICE - 100),
            (PRICE, PRICE),
        ]
        assert standing(await served.wallet(user_id)) == (0, 0, 0)
        entries = await served.transactions(user_id)
        assert [e.credits_micros for e in entries[1:]] == [PRICE, 100, 0]
        assert [e.shortfall_micros for e in entries[1:]] == [0, PRICE - 100, PRICE]
        await served.assert_sound(user_id)

    async def test_a_later_grant_pays_no_shortfall(self, served: Served) -> None:
        user_id = await served.new_wallet()
        await bill(served, user_id)
        await served.grant(user_id, 1_000)
        assert standing(await served.wallet(user_id)) == (1_000, 0, 1_000)
        await served.assert_sound(user_id)


class TestCarryDebt:
    async def test_goes_below_zero(self, served: Served) -> None:
        user_id = await served.new_wallet(100)
        await carry_debt(served, user_id)
        (receipt,) = await bill(served, user_id)
        assert (receipt.credits_micros, receipt.shortfall_micros) == (PRICE, 0)
        assert receipt.balance_after_micros == 100 - PRICE
        assert standing(await served.wallet(user_id)) == (100 - PRICE, PRICE - 100, 0)
        with refused("INSUFFICIENT_CREDITS") as refusal:
            await served.consume(user_id, 1)
        assert refusal.metadata["available_micros"] == "0"
        await served.assert_sound(user_id)

    async def test_the_next_grants_repay_it(self, served: Served) -> None:
        user_id = await served.new_wallet()
        await carry_debt(served, user_id)
        await bill(served, user_id)
        await served.grant(user_id, 1)
        assert standing(await served.wallet(user_id)) == (1 - PRICE, PRICE - 1, 0)
        answer = await served.grant(user_id, PRICE)
        assert standing(answer.wallet) == (1, 0, 1)
        assert [grant.remaining_micros for grant in answer.wallet.grants] == [1]
        await served.consume(user_id, 1)
        await served.assert_sound(user_id)

    async def test_is_bounded_by_int64(self, served: Served) -> None:
        user_id = await served.new_wallet()
        await carry_debt(served, user_id)
        # 1.6602 quintillion micro-credits each: the sixth leaves the range.
        events = [usage_event(user_id, input_tokens=INT64_MAX // 1_000) for _ in range(6)]
        results = await served.record(*events, usage_event(user_id))
        assert reasons(results) == [""] * 5 + ["AMOUNT_OUT_OF_RANGE", ""]
        await served.assert_sound(user_id)


class TestExpiredCredits:
    async def test_cannot_pay_for_usage_billed_later(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet(10)
        used_ms = manual_clock()
        await clocked.grant(user_id, PRICE, expires_time=at(used_ms + 1_000))
        manual_clock.advance(1_000)
        (receipt,) = await bill(clocked, user_id, occurred_ms=used_ms)
        assert (receipt.credits_micros, receipt.shortfall_micros) == (PRICE, PRICE - 10)
        kinds = [e.counter_account for e in await clocked.transactions(user_id)]
        assert kinds == ["source:bonus", "source:bonus", "breakage:expiry", "revenue:usage"]
        assert standing(await clocked.wallet(user_id)) == (0, 0, 0)
        await clocked.assert_sound(user_id)

    async def test_pay_until_their_last_millisecond(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet()
        await clocked.grant(user_id, PRICE + 1, expires_time=at(manual_clock() + 1_000))
        manual_clock.advance(999)
        (receipt,) = await bill(clocked, user_id, occurred_ms=manual_clock())
        assert (receipt.shortfall_micros, receipt.balance_after_micros) == (0, 1)
        manual_clock.advance(1)
        assert standing(await clocked.wallet(user_id)) == (0, 0, 0)
        await clocked.assert_sound(user_id)

    async def test_become_debt_where_debt_is_carried(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet()
        await carry_debt(clocked, user_id)
        await clocked.grant(user_id, PRICE, expires_time=at(manual_clock() + 1_000))
        manual_clock.advance(1_000)
        await bill(clocked, user_id, occurred_ms=manual_clock())
        await clocked.grant(user_id, PRICE + 5)
        assert standing(await clocked.wallet(user_id)) == (5, 0, 5)
        await clocked.assert_sound(user_id)
