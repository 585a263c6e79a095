"""RedeemCoupon: its credits, its counts, and every reason by its name."""

import asyncio
from collections import Counter
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from zaaz.catalog.v1 import coupon_pb2

from server.kernel.clock import DAY_MS
from tests.offers.shop import FIXED, PERCENTAGE, Shop, plan, price, redeem
from tests.offers.uses import COUPON, assert_books_agree, redemptions
from tests.races.callers import outcome, outcomes, persist
from tests.serving import new_key, new_user

CALLERS = 200


async def refusal(call: Any) -> tuple[str, grpc.StatusCode]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return await outcome(_raise(caught.value)), caught.value.code()


async def _raise(error: Exception) -> None:
    raise error


def moment(time_ms: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds(time_ms)
    return stamp


async def test_it_grants_the_credits(shop: Shop) -> None:
    user_id = await shop.served.new_wallet()
    coupon = await shop.new_coupon(credits_micros=7_000_000, credits_days=30)
    answer = await shop.redeem(user_id, coupon.code.lower())
    transaction, wallet = answer.transaction, answer.wallet
    assert transaction.credits_micros == wallet.credits_micros == 7_000_000
    assert transaction.increase_source == COUPON
    assert transaction.reason == f"coupon {coupon.code}"
    assert transaction.client_id == "tests"
    assert transaction.grant_expires_time == moment(shop.clock() + 30 * DAY_MS)
    assert (await shop.served.wallet(user_id)).grants[0].source == COUPON

    (use,) = await redemptions(shop.database, coupon.id)
    assert use["code"] == coupon.code
    assert (use["client_id"], use["request_id"]) == ("tests", transaction.request_id)
    assert await assert_books_agree(shop.served, shop.database, coupon, [user_id]) == 1
    assert (await shop.coupon(coupon.id)).etag == coupon.etag


async def test_credits_without_days_are_good_for_ever(shop: Shop) -> None:
    user_id, coupon = await shop.served.new_wallet(), await shop.new_coupon()
    answer = await shop.redeem(user_id, coupon.code)
    assert not answer.transaction.HasField("grant_expires_time")


async def test_each_reason_against_it(shop: Shop) -> None:
    now_ms, user_id = shop.clock(), await shop.served.new_wallet()
    precondition = grpc.StatusCode.FAILED_PRECONDITION
    assert await refusal(shop.redeem(user_id, "NONE")) == (
        "COUPON_NOT_FOUND",
        grpc.StatusCode.NOT_FOUND,
    )
    expectations: list[tuple[str, dict[str, Any]]] = [
        ("COUPON_NOT_REDEEMABLE", {"discount_type": PERCENTAGE, "discount_ppm": 1}),
        ("COUPON_NOT_REDEEMABLE", {"discount_type": FIXED, "fixed_amount": {"usd_micros": 1}}),
        ("COUPON_EXPIRED", {"valid_until_time": moment(now_ms)}),
        ("COUPON_NOT_YET_VALID", {"valid_from_time": moment(now_ms + 1)}),
    ]
    for expected, fields in expectations:
        coupon = await shop.new_coupon(**fields)
        assert await refusal(shop.redeem(user_id, coupon.code)) == (expected, precondition)
        assert await assert_books_agree(shop.served, shop.database, coupon, [user_id]) == 0
    assert not await shop.served.transactions(user_id)


@pytest.mark.parametrize("kind", ["is_active", "delete"])
async def test_one_that_is_gone_is_not_found(shop: Shop, kind: str) -> None:
    user_id, coupon = await shop.served.new_wallet(), await shop.new_coupon()
    await put_away(shop, coupon, kind)
    assert (await refusal(shop.redeem(user_id, coupon.code)))[0] == "COUPON_NOT_FOUND"


async def put_away(shop: Shop, coupon: coupon_pb2.Coupon, kind: str) -> None:
    if kind == "is_active":
        await shop.change_coupon(coupon, is_active=False)
        return
    await shop.served.catalog.DeleteCoupon(coupon_pb2.DeleteCouponRequest(id=coupon.id))
    if kind == "purge":
        await shop.served.catalog.PurgeCoupon(coupon_pb2.PurgeCouponRequest(id=coupon.id))


async def test_limits(shop: Shop) -> None:
    first, second, third = [await shop.served.new_wallet() for _ in range(3)]
    coupon = await shop.new_coupon(usage_limit=3, user_usage_limit=2)
    for user_id in (first, first):
        await shop.redeem(user_id, coupon.code)
    assert (await refusal(shop.redeem(first, coupon.code)))[0] == "COUPON_USED_BY_USER"
    await shop.redeem(second, coupon.code)
    for user_id in (second, third):
        assert (await refusal(shop.redeem(user_id, coupon.code)))[0] == "COUPON_USED_UP"
    users = [first, second, third]
    assert await assert_books_agree(shop.served, shop.database, coupon, users) == 3
    # A higher limit counts at once, and the count goes on.
    await shop.change_coupon(coupon, usage_limit=4)
    await shop.redeem(third, coupon.code)
    assert await assert_books_agree(shop.served, shop.database, coupon, users) == 4


async def test_what_is_refused_is_not_counted(shop: Shop) -> None:
    coupon = await shop.new_coupon()
    assert (await refusal(shop.redeem(new_user(), coupon.code)))[0] == "WALLET_NOT_FOUND"
    assert await assert_books_agree(shop.served, shop.database, coupon, []) == 0


@pytest.mark.parametrize("kind", ["is_active", "delete", "purge", "used up", "a discount"])
async def test_a_replay_is_answered_as_at_first(shop: Shop, kind: str) -> None:
    """Whatever has become of the coupon since."""
    user_id, coupon = await shop.served.new_wallet(), await shop.new_coupon(usage_limit=1)
    request_id = new_key()
    first = await shop.redeem(user_id, coupon.code, request_id)
    await shop.served.grant(user_id, 5)
    if kind == "a discount":
        discount = {"discount_type": PERCENTAGE, "discount_ppm": 1, "credits_micros": 0}
        await shop.change_coupon(coupon, **discount)
    elif kind != "used up":
        await put_away(shop, coupon, kind)
    for code in (coupon.code, coupon.code.lower()):
        assert await shop.redeem(user_id, code, request_id) == first
    reused = await refusal(shop.redeem(await shop.served.new_wallet(), coupon.code, request_id))
    assert reused[0] == "REQUEST_ID_REUSED"
    assert len(await redemptions(shop.database, coupon.id)) == 1


async def test_two_hundred_at_once_for_the_last_use(shop: Shop) -> None:
    users = [await shop.served.new_wallet() for _ in range(CALLERS)]
    coupon = await shop.new_coupon(usage_limit=3)
    for user_id in users[:2]:
        await shop.redeem(user_id, coupon.code)
    answers = await outcomes(*(shop.redeem(user_id, coupon.code) for user_id in users))
    refused = Counter(answer for answer in answers if isinstance(answer, str))
    assert refused == {"COUPON_USED_UP": CALLERS - 1}
    assert await assert_books_agree(shop.served, shop.database, coupon, users) == 3


async def test_one_user_at_once(shop: Shop) -> None:
    users = [await shop.served.new_wallet() for _ in range(3)]
    coupon = await shop.new_coupon(user_usage_limit=2)
    calls = [shop.redeem(user_id, coupon.code) for user_id in users * 20]
    refused = Counter(answer for answer in await outcomes(*calls) if isinstance(answer, str))
    assert refused == {"COUPON_USED_BY_USER": 54}
    assert await assert_books_agree(shop.served, shop.database, coupon, users) == 6


async def test_one_request_many_times_at_once(shop: Shop) -> None:
    user_id, request_id = await shop.served.new_wallet(), new_key()
    coupon = await shop.new_coupon(usage_limit=1)
    calls = [shop.redeem(user_id, coupon.code, request_id) for _ in range(50)]
    first, *rest = await asyncio.gather(*calls)
    assert all(answer == first for answer in rest)
    assert await assert_books_agree(shop.served, shop.database, coupon, [user_id]) == 1


async def test_one_that_is_changed_while_it_is_redeemed(shop: Shop) -> None:
    """Every grant is of what the coupon was worth when it was counted."""
    users = [await shop.served.new_wallet() for _ in range(4)]
    coupon = await shop.new_coupon(credits_micros=1)

    async def change() -> None:
        for worth in range(2, 8):
            await persist(partial(shop.change_coupon, coupon, credits_micros=worth))

    async def use(user_id: str) -> list[Any]:
        return [await outcome(redeem(shop.offers, user_id, coupon.code)) for _ in range(15)]

    _, *answers = await asyncio.gather(change(), *map(use, users))
    told = [answer for each in answers for answer in each]
    assert {answer for answer in told if isinstance(answer, str)} <= {"CONTENTION"}
    done = [answer for answer in told if not isinstance(answer, str)]
    assert len(await redemptions(shop.database, coupon.id)) == len(done) >= 1
    assert (await shop.coupon(coupon.id)).usage_count == len(done)
    assert (await shop.coupon(coupon.id)).credits_micros == 7


async def test_a_purchase_counts_its_coupon(shop: Shop) -> None:
    user_id, other = await shop.served.new_wallet(), await shop.served.new_wallet()
    snapshot = await shop.put(price(plan()))
    coupon = await shop.new_coupon(discount_type=PERCENTAGE, discount_ppm=1, usage_limit=1)
    request_id = new_key()
    first = await shop.activate(user_id, snapshot, coupon.code.lower(), request_id)
    assert (await shop.coupon(coupon.id)).usage_count == 1
    (use,) = await redemptions(shop.database, coupon.id)
    assert str(use["user_id"]) == user_id
    assert await shop.activate(user_id, snapshot, coupon.code.lower(), request_id) == first
    assert (await refusal(shop.activate(other, snapshot, coupon.code)))[0] == "COUPON_USED_UP"
    assert not (await shop.served.wallet(other)).package_id


async def test_each_reason_against_a_purchase_with_a_coupon(shop: Shop) -> None:
    now_ms, user_id = shop.clock(), await shop.served.new_wallet()
    snapshot, elsewhere = await shop.put(price(plan())), await shop.put(price(plan()))
    percentage: dict[str, Any] = {"discount_type": PERCENTAGE, "discount_ppm": 1}
    package_id = str(elsewhere["package_id"])
    expectations: dict[str, dict[str, Any]] = {
        "COUPON_NOT_FOUND": {**percentage, "is_active": False},
        "COUPON_NOT_A_DISCOUNT": {},
        "COUPON_NOT_FOR_PACKAGE": {**percentage, "applicable_package_ids": [package_id]},
        "COUPON_EXPIRED": {**percentage, "valid_until_time": moment(now_ms)},
        "COUPON_NOT_YET_VALID": {**percentage, "valid_from_time": moment(now_ms + 1)},
    }
    for expected, fields in expectations.items():
        coupon = await shop.new_coupon(**fields)
        assert (await refusal(shop.activate(user_id, snapshot, coupon.code)))[0] == expected
        assert (await shop.coupon(coupon.id)).usage_count == 0
    once = await shop.new_coupon(**percentage, user_usage_limit=1)
    await shop.activate(user_id, snapshot, once.code)
    refused = await refusal(shop.activate(user_id, snapshot, once.code))
    assert refused[0] == "COUPON_USED_BY_USER"
