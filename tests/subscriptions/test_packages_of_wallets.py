"""Starting, renewing, changing and ending a user's package: wallet, credits and terms together."""

import asyncio

import pytest
from bson import ObjectId
from google.protobuf.field_mask_pb2 import FieldMask
from zaaz.catalog.v1 import package_pb2, package_plan_pb2
from zaaz.ledger.v1 import credits_transaction_pb2, grant_pb2

from tests.ledger.calls import at, refused
from tests.serving import new_key, usage_event
from tests.subscriptions.market import (
    CREDITS,
    FIVE_CREDITS,
    FREE,
    MONTH_MS,
    PAID,
    Market,
)

PACKAGE_END = credits_transaction_pb2.DECREASE_REASON_PACKAGE_END


async def assert_sound(market: Market, user_id: str) -> None:
    await market.served.assert_sound(user_id)


class TestActivate:
    async def test_wallet_and_credits_in_one_step(self, market: Market) -> None:
        sold, user_id = await market.package(), await market.served.new_wallet()
        payment_id, now_ms = str(ObjectId()), market.clock()
        answer = await market.activate(user_id, sold, payment_transaction_id=payment_id)
        entry, wallet = answer.transaction, answer.wallet
        ends = at(now_ms + MONTH_MS)
        assert (wallet.package_id, wallet.plan_id) == (sold.package_id, sold.plan_id)
        assert (wallet.type, wallet.expires_time) == (PAID, ends)
        assert wallet.available_micros == FIVE_CREDITS
        assert entry.increase_source == grant_pb2.INCREASE_SOURCE_PAYMENT
        assert (entry.credits_micros, entry.grant_expires_time) == (FIVE_CREDITS, ends)
        assert (entry.payment_transaction_id, entry.plan_id) == (payment_id, sold.plan_id)
        subscription = wallet.subscription
        assert subscription.id == entry.id
        assert subscription.package_plan_id == sold.package_plan_id
        assert subscription.package_history_id == await market.history_id(sold)
        assert (subscription.start_time, subscription.expires_time) == (at(now_ms), ends)
        assert await market.wallet(user_id) == wallet
        (event,) = await market.events(user_id)
        assert (event.id, event.credits_transaction_id) == (entry.id, entry.id)
        assert (event.payment_transaction_id, event.credits_micros) == (payment_id, FIVE_CREDITS)
        assert (event.start_time, event.end_time) == (at(now_ms), ends)
        await assert_sound(market, user_id)

    async def test_a_replay_is_the_first_answer_whatever_became_of_the_package(
        self, market: Market
    ) -> None:
        sold, user_id = await market.package(), await market.served.new_wallet()
        request_id = new_key()
        first = await market.activate(user_id, sold, request_id)
        catalog = market.served.catalog
        price = package_plan_pb2.DeletePackagePlanRequest(id=sold.package_plan_id)
        await catalog.DeletePackagePlan(price)
        assert await market.activate(user_id, sold, request_id) == first
        with refused("PACKAGE_NOT_SOLD"):
            await market.activate(user_id, sold)
        with refused("REQUEST_ID_REUSED"):
            await market.activate(await market.served.new_wallet(), sold, request_id)
        assert await market.kinds(user_id) == ["STARTED"]

    async def test_at_once_under_one_request_counts_once(self, market: Market) -> None:
        sold, user_id = await market.package(), await market.served.new_wallet()
        request_id = new_key()
        answers = await asyncio.gather(
            *(market.activate(user_id, sold, request_id) for _ in range(20))
        )
        assert len({answer.transaction.id for answer in answers}) == 1
        assert (await market.wallet(user_id)).credits_micros == FIVE_CREDITS

    async def test_once_a_payment_whoever_asks(self, market: Market) -> None:
        sold, payment_id = await market.package(), str(ObjectId())
        users = [await market.served.new_wallet() for _ in range(10)]
        tries = await asyncio.gather(
            *(market.activate(user, sold, payment_transaction_id=payment_id) for user in users),
            return_exceptions=True,
        )
        (first,) = [one for one in tries if not isinstance(one, BaseException)]
        with refused("PAYMENT_ALREADY_USED") as refusal:
            await market.activate(users[0], sold, payment_transaction_id=payment_id)
        assert refusal.metadata == {
            "payment_transaction_id": payment_id,
            "credits_transaction_id": first.transaction.id,
        }
        balances = [(await market.wallet(user)).credits_micros for user in users]
        assert sorted(balances) == [0] * 9 + [FIVE_CREDITS]

    async def test_the_terms_of_the_snapshot_that_was_quoted(self, market: Market) -> None:
        sold, user_id = await market.package(), await market.served.new_wallet()
        quoted = await market.history_id(sold)
        dearer = package_plan_pb2.PackagePlan(id=sold.package_plan_id, credits_micros=1)
        await market.served.catalog.UpdatePackagePlan(
            package_plan_pb2.UpdatePackagePlanRequest(package_plan=dearer)
        )
        assert await market.history_id(sold) != quoted
        answer = await market.activate(user_id, sold, package_history_id=quoted)
        assert answer.wallet.credits_micros == FIVE_CREDITS
        assert answer.wallet.subscription.package_history_id == quoted
        other = await market.package()
        with refused("PACKAGE_NOT_SOLD"):
            await market.activate(user_id, other, package_history_id=quoted)

    async def test_what_is_not_sold(self, market: Market) -> None:
        sold, user_id = await market.package(), await market.served.new_wallet()
        await market.package()
        off = package_pb2.Package(id=sold.package_id, is_active=False)
        request = package_pb2.UpdatePackageRequest(
            package=off, update_mask=FieldMask(paths=["is_active"])
        )
        await market.served.catalog.UpdatePackage(request)
        with refused("PACKAGE_NOT_SOLD") as refusal:
            await market.activate(user_id, sold)
        assert refusal.metadata == {"package_id": sold.package_id, "plan_id": sold.plan_id}
        with refused("PACKAGE_NOT_SOLD"):
            await market.activate(user_id, sold._replace(package_id=str(ObjectId())))
        answer = await market.assign(user_id, sold, reason="a gift")
        assert answer.transaction.reason == "a gift"
        assert answer.transaction.increase_source == grant_pb2.INCREASE_SOURCE_BONUS
        assert answer.wallet.package_id == sold.package_id

    async def test_without_a_wallet(self, market: Market) -> None:
        sold = await market.package()
        with refused("WALLET_NOT_FOUND"):
            await market.activate(str(ObjectId()), sold)
        with refused("WALLET_NOT_FOUND"):
            await market.cancel(str(ObjectId()))


class TestRenewal:
    async def test_goes_on_where_the_period_ends(self, market: Market) -> None:
        sold, user_id = await market.package(), await market.served.new_wallet()
        first = (await market.activate(user_id, sold)).wallet
        market.clock.advance(MONTH_MS // 2)
        second = (await market.activate(user_id, sold)).wallet
        assert second.expires_time == at(first.expires_time.ToMilliseconds() + MONTH_MS)
        assert second.credits_micros == 2 * FIVE_CREDITS
        assert second.subscription.start_time == first.subscription.start_time
        market.clock.advance(MONTH_MS)
        wallet = await market.wallet(user_id)
        # The first month's credits are gone with it, the subscription is not.
        assert (wallet.available_micros, wallet.type) == (FIVE_CREDITS, PAID)
        assert await market.kinds(user_id) == ["STARTED", "RENEWED"]

    async def test_begins_now_once_the_period_is_over(self, market: Market) -> None:
        sold, user_id = await market.package(), await market.served.new_wallet()
        await market.activate(user_id, sold)
        market.clock.advance(3 * MONTH_MS)
        wallet = (await market.activate(user_id, sold)).wallet
        assert wallet.expires_time == at(market.clock() + MONTH_MS)
        assert wallet.available_micros == FIVE_CREDITS
        assert await market.kinds(user_id) == ["STARTED", "EXPIRED", "RENEWED"]
        await assert_sound(market, user_id)

    async def test_for_another_plan_of_the_package(self, market: Market) -> None:
        sold, user_id = await market.package(), await market.served.new_wallet()
        yearly = await market.price(sold.package_id, 100_000_000, 0, 365)
        ends = (await market.activate(user_id, sold)).wallet.expires_time.ToMilliseconds()
        wallet = (await market.activate(user_id, yearly)).wallet
        assert wallet.plan_id == yearly.plan_id
        assert wallet.expires_time == at(ends + 365 * 86_400_000)


class TestAnotherPackage:
    async def test_begins_now(self, market: Market) -> None:
        small, big = await market.package(), await market.package(days=365)
        user_id = await market.served.new_wallet()
        await market.activate(user_id, small)
        market.clock.advance(1_000)
        wallet = (await market.activate(user_id, big)).wallet
        assert wallet.package_id == big.package_id
        assert wallet.expires_time == at(market.clock() + 365 * 86_400_000)
        # What was granted before stays until it expires.
        assert wallet.credits_micros == 2 * FIVE_CREDITS
        assert await market.kinds(user_id) == ["STARTED", "STARTED"]

    async def test_credits_beside_a_subscription_leave_it_alone(self, market: Market) -> None:
        subscription, pack = await market.package(), await market.package(CREDITS, days=365)
        user_id = await market.served.new_wallet()
        before = (await market.activate(user_id, subscription)).wallet
        after = (await market.activate(user_id, pack)).wallet
        assert after.subscription == before.subscription
        assert (after.package_id, after.expires_time) == (before.package_id, before.expires_time)
        assert after.credits_micros == 2 * FIVE_CREDITS
        assert await market.kinds(user_id) == ["STARTED", "TOPPED_UP"]

    async def test_a_free_package_goes_on_for_as_long_as_paid_credits(self, market: Market) -> None:
        free, pack = await market.package(usd_micros=0), await market.package(CREDITS, days=365)
        user_id = await market.served.new_wallet()
        assert (await market.activate(user_id, free)).wallet.type == FREE
        wallet = (await market.activate(user_id, pack)).wallet
        assert (wallet.package_id, wallet.type) == (free.package_id, PAID)
        ends_ms = market.clock() + 365 * 86_400_000
        assert wallet.expires_time == wallet.subscription.expires_time == at(ends_ms)
        market.clock.advance(MONTH_MS)
        assert (await market.wallet(user_id)).available_micros == FIVE_CREDITS
        market.clock.advance(365 * 86_400_000 - MONTH_MS)
        wallet = await market.wallet(user_id)
        assert (wallet.type, wallet.available_micros) == (FREE, 0)
        assert await market.kinds(user_id) == ["STARTED", "TOPPED_UP"]
        await assert_sound(market, user_id)


class TestSchedule:
    async def test_begins_by_itself_when_the_period_ends(self, market: Market) -> None:
        big, small = await market.package(), await market.package(credits_micros=7)
        user_id = await market.served.new_wallet()
        ends = (await market.activate(user_id, big)).wallet.expires_time
        wallet = (await market.schedule(user_id, small)).wallet
        assert wallet.package_id == big.package_id
        assert wallet.subscription.next_package_id == small.package_id
        assert wallet.subscription.next_plan_id == small.plan_id
        market.clock.advance(MONTH_MS + 1)
        wallet = await market.wallet(user_id)
        assert wallet.package_id == small.package_id
        assert wallet.subscription.start_time == ends
        assert wallet.expires_time == at(ends.ToMilliseconds() + MONTH_MS)
        assert (wallet.available_micros, wallet.type) == (7, PAID)
        await market.served.consume(user_id, 7)
        assert await market.kinds(user_id) == ["STARTED", "SCHEDULED", "EXPIRED", "STARTED"]
        await assert_sound(market, user_id)

    async def test_under_the_terms_of_its_scheduling(self, market: Market) -> None:
        big, small = await market.package(), await market.package(credits_micros=7)
        user_id = await market.served.new_wallet()
        await market.activate(user_id, big)
        await market.schedule(user_id, small)
        price = package_plan_pb2.DeletePackagePlanRequest(id=small.package_plan_id)
        await market.served.catalog.DeletePackagePlan(price)
        market.clock.advance(MONTH_MS + 1)
        assert (await market.wallet(user_id)).available_micros == 7

    @pytest.mark.parametrize("undone_by", ["renewal", "upgrade", "cancel"])
    async def test_is_undone(self, market: Market, undone_by: str) -> None:
        big, small = await market.package(), await market.package()
        user_id = await market.served.new_wallet()
        await market.activate(user_id, big)
        await market.schedule(user_id, small)
        if undone_by == "cancel":
            wallet = (await market.cancel(user_id)).wallet
        else:
            other = big if undone_by == "renewal" else await market.package()
            wallet = (await market.activate(user_id, other)).wallet
        assert wallet.subscription.next_package_id == ""

    async def test_without_a_package_that_runs(self, market: Market) -> None:
        sold, user_id = await market.package(), await market.served.new_wallet()
        with refused("SUBSCRIPTION_NOT_FOUND") as refusal:
            await market.schedule(user_id, sold)
        assert refusal.metadata == {"user_id": user_id}


class TestCancel:
    async def test_when_the_period_ends(self, market: Market) -> None:
        sold, user_id = await market.package(), await market.served.new_wallet()
        ends = (await market.activate(user_id, sold)).wallet.expires_time
        for _ in range(2):
            wallet = (await market.cancel(user_id)).wallet
            assert (wallet.subscription.is_canceled, wallet.expires_time) == (True, ends)
        assert wallet.available_micros == FIVE_CREDITS
        assert not (await market.activate(user_id, sold)).wallet.subscription.is_canceled

    async def test_at_once(self, market: Market) -> None:
        sold, user_id = await market.package(), await market.served.new_wallet()
        await market.activate(user_id, sold)
        market.clock.advance(1_000)
        wallet = (await market.cancel(user_id, at_once=True, reason="asked to")).wallet
        assert (wallet.type, wallet.available_micros) == (FREE, 0)
        assert wallet.expires_time == at(market.clock())
        assert not wallet.HasField("subscription")
        with refused("WALLET_EXPIRED"):
            await market.served.consume(user_id, 1)
        last = (await market.served.transactions(user_id))[-1]
        assert (last.decrease_reason, last.reason) == (PACKAGE_END, "asked to")
        assert await market.kinds(user_id) == ["STARTED", "ENDED"]
        with refused("SUBSCRIPTION_NOT_FOUND"):
            await market.cancel(user_id)
        await assert_sound(market, user_id)


class TestExpiry:
    async def test_needs_no_worker(self, market: Market) -> None:
        sold, user_id = await market.package(), await market.served.new_wallet()
        await market.activate(user_id, sold)
        await market.served.grant(user_id, 100)
        market.clock.advance(MONTH_MS)
        wallet = await market.wallet(user_id)
        assert (wallet.type, wallet.available_micros, wallet.credits_micros) == (FREE, 0, 100)
        assert wallet.package_id == sold.package_id
        assert not wallet.HasField("subscription")
        with refused("WALLET_EXPIRED"):
            await market.served.consume(user_id, 1)

    async def test_is_written_by_the_worker_and_told(self, market: Market) -> None:
        sold, user_id = await market.package(), await market.served.new_wallet()
        ends = (await market.activate(user_id, sold)).wallet.expires_time
        market.clock.advance(MONTH_MS + 5)
        async with asyncio.timeout(15):
            kinds = await market.kinds(user_id)
            while "EXPIRED" not in kinds:
                await asyncio.sleep(0.05)
                kinds = await market.kinds(user_id)
        end = (await market.served.transactions(user_id))[-1]
        assert (end.decrease_reason, end.credits_micros) == (PACKAGE_END, 0)
        assert (end.occurred_time, end.counter_account) == (ends, "package:end")
        assert end.package_id == sold.package_id
        assert end.package_history_id == await market.history_id(sold)
        await assert_sound(market, user_id)

    async def test_usage_of_an_expired_wallet_is_billed(self, market: Market) -> None:
        sold, user_id = await market.package(), await market.served.new_wallet()
        await market.activate(user_id, sold)
        await market.served.grant(user_id, 1_000_000)
        market.clock.advance(MONTH_MS)
        (result,) = await market.served.record(usage_event(user_id, occurred_ms=market.clock() - 1))
        assert not result.HasField("error")
        assert (await market.wallet(user_id)).credits_micros == 460_000
