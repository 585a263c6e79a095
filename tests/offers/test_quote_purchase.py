"""QuotePurchase through the contract: amounts, what is got, and every reason by its name."""

from typing import Any

import grpc
import pytest
from bson import ObjectId
from google.protobuf.timestamp_pb2 import Timestamp
from zaaz.catalog.v1.package_plan_pb2 import Price

from server.kernel.clock import DAY_MS
from tests.offers.shop import (
    BDT,
    CREDITS,
    FIXED,
    MONTH_MS,
    PERCENTAGE,
    TEN_USD,
    Shop,
    plan,
    price,
    reasons,
)
from tests.serving import new_user, reason_of


def moment(time_ms: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds(time_ms)
    return stamp


async def test_a_purchase_without_a_coupon(shop: Shop) -> None:
    snapshot = await shop.put(price(plan()), price(plan("Yearly", duration_days=365), 7))
    quoted = await shop.quote(snapshot)
    assert quoted.purchasable
    assert not quoted.refusals
    assert (quoted.price_micros, quoted.discount_micros) == (TEN_USD, 0)
    assert quoted.amount_micros == TEN_USD
    assert quoted.credits_micros == 5_000_000
    assert quoted.expires_time == moment(shop.clock() + MONTH_MS)
    assert not quoted.is_renewal
    assert quoted.package_plan_id == str(snapshot["plans"][0]["_id"])
    assert quoted.package_history_id == str(snapshot["_id"])
    assert quoted.coupon_id == ""

    yearly = await shop.quote(snapshot, 1)
    assert yearly.amount_micros == 7
    assert yearly.expires_time == moment(shop.clock() + 365 * DAY_MS)


@pytest.mark.parametrize(
    ("fields", "off"),
    [
        ({"discount_type": PERCENTAGE, "discount_ppm": 250_000}, 2_500_000),
        (
            {
                "discount_type": PERCENTAGE,
                "discount_ppm": 250_000,
                "max_discount_amount": Price(usd_micros=1_000_000),
                "min_purchase_amount": Price(usd_micros=TEN_USD, bdt_micros=TEN_USD * 9),
                "usage_limit": 1,
                "user_usage_limit": 1,
            },
            1_000_000,
        ),
        ({"discount_type": FIXED, "fixed_amount": Price(usd_micros=3_000_000)}, 3_000_000),
        ({"discount_type": FIXED, "fixed_amount": Price(usd_micros=TEN_USD * 2)}, TEN_USD),
    ],
)
async def test_a_coupon_takes_off(shop: Shop, fields: dict[str, Any], off: int) -> None:
    coupon, user_id = await shop.new_coupon(**fields), await shop.served.new_wallet()
    snapshot = await shop.put(price(plan()))
    code = coupon.code.lower()
    quoted = await shop.quote(snapshot, user_id=user_id, coupon_code=code)
    assert reasons(quoted) == []
    assert (quoted.price_micros, quoted.discount_micros) == (TEN_USD, off)
    assert quoted.amount_micros == TEN_USD - off
    assert quoted.coupon_id == coupon.id


async def test_what_is_quoted_is_what_a_purchase_gives(shop: Shop) -> None:
    user_id = await shop.served.new_wallet()
    snapshot, other = await shop.put(price(plan())), await shop.put(price(plan()))
    top_up = await shop.put(price(plan(duration_days=400)), type=1)
    start_ms = shop.clock()
    for bought, advance_ms, is_renewal, ends_ms in (
        (snapshot, 0, False, start_ms + MONTH_MS),
        (snapshot, DAY_MS, True, start_ms + 2 * MONTH_MS),
        (top_up, 0, False, shop.clock() + 401 * DAY_MS),
        # Another takes its place, and it then that one's.
        (other, DAY_MS, False, start_ms + 2 * DAY_MS + MONTH_MS),
        (snapshot, 0, False, start_ms + 2 * DAY_MS + MONTH_MS),
        # Over: it begins anew.
        (snapshot, 2 * MONTH_MS, False, start_ms + 2 * DAY_MS + 3 * MONTH_MS),
    ):
        shop.clock.advance(advance_ms)
        quoted = await shop.quote(bought, user_id=user_id)
        assert quoted.purchasable
        assert quoted.is_renewal == is_renewal
        assert quoted.expires_time == moment(ends_ms)
        sold = await shop.activate(user_id, bought)
        assert sold.transaction.grant_expires_time == quoted.expires_time
        assert sold.transaction.credits_micros == quoted.credits_micros
        if bought is not top_up:
            assert sold.wallet.expires_time == quoted.expires_time


async def test_what_others_have_changes_no_quote(shop: Shop) -> None:
    snapshot, user_id = await shop.put(price(plan())), await shop.served.new_wallet()
    await shop.activate(user_id, snapshot)
    for who in ("", await shop.served.new_wallet()):
        quoted = await shop.quote(snapshot, user_id=who)
        assert not quoted.is_renewal
        assert quoted.expires_time == moment(shop.clock() + MONTH_MS)


async def test_a_user_without_a_wallet_is_told(shop: Shop) -> None:
    snapshot = await shop.put(price(plan()))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shop.quote(snapshot, user_id=new_user())
    assert reason_of(caught.value) == "WALLET_NOT_FOUND"


async def test_what_is_not_sold(shop: Shop) -> None:
    off = await shop.put(price(plan()), is_active=False)
    gone = await shop.put(price(plan()), is_deleted=True)
    parts = await shop.put(price(plan(is_active=False)), price(plan(), is_active=False))
    unknown = str(ObjectId())
    for quoted in (
        await shop.quote(off),
        await shop.quote(gone),
        await shop.quote(parts, 0),
        await shop.quote(parts, 1),
        await shop.quote(parts, plan_id=unknown),
        await shop.quote(parts, package_id=unknown),
    ):
        assert not quoted.purchasable
        assert reasons(quoted) == ["PACKAGE_NOT_SOLD"]
        assert quoted.price_micros == quoted.amount_micros == quoted.credits_micros == 0
        assert not quoted.HasField("expires_time")
    assert quoted.refusals[0].metadata["package_id"] == unknown


async def test_a_currency_that_it_is_not_sold_in(shop: Shop) -> None:
    quoted = await shop.quote(await shop.put(price(plan())), currency=BDT)
    assert reasons(quoted) == ["CURRENCY_NOT_SOLD"]
    assert dict(quoted.refusals[0].metadata) == {"currency": "BDT"}
    assert (quoted.price_micros, quoted.amount_micros) == (0, 0)
    assert quoted.credits_micros == 5_000_000


async def test_a_coupon_that_is_not_there(shop: Shop) -> None:
    snapshot = await shop.put(price(plan()))
    off = await shop.new_coupon(discount_type=PERCENTAGE, discount_ppm=1, is_active=False)
    for code in ("NONE", off.code):
        quoted = await shop.quote(snapshot, coupon_code=code.lower())
        assert reasons(quoted) == ["COUPON_NOT_FOUND"]
        assert dict(quoted.refusals[0].metadata) == {"code": code}
        assert quoted.coupon_id == ""
        assert (quoted.discount_micros, quoted.amount_micros) == (0, TEN_USD)


async def test_each_reason_against_a_coupon(shop: Shop) -> None:
    now_ms = shop.clock()
    snapshot, user_id = await shop.put(price(plan())), await shop.served.new_wallet()
    percentage: dict[str, Any] = {"discount_type": PERCENTAGE, "discount_ppm": 1}
    expectations: dict[str, dict[str, Any]] = {
        "COUPON_EXPIRED": {**percentage, "valid_until_time": moment(now_ms)},
        "COUPON_NOT_YET_VALID": {**percentage, "valid_from_time": moment(now_ms + 1)},
        "COUPON_MINIMUM_NOT_MET": {
            **percentage,
            "min_purchase_amount": Price(usd_micros=TEN_USD + 1),
        },
        "COUPON_NOT_FOR_PACKAGE": {
            **percentage,
            "applicable_package_ids": [str((await shop.put(price(plan())))["package_id"])],
        },
        "COUPON_NOT_FOR_CURRENCY": {
            "discount_type": FIXED,
            "fixed_amount": Price(bdt_micros=1),
        },
        "COUPON_NOT_A_DISCOUNT": {"discount_type": CREDITS},
    }
    for expected, fields in expectations.items():
        coupon = await shop.new_coupon(**fields)
        quoted = await shop.quote(snapshot, user_id=user_id, coupon_code=coupon.code)
        assert reasons(quoted) == [expected]
        assert quoted.refusals[0].metadata["code"] == coupon.code
        assert not quoted.purchasable
        assert (quoted.discount_micros, quoted.amount_micros) == (0, TEN_USD)


async def test_every_reason_at_once(shop: Shop) -> None:
    """Used as often as it may be, by one user, and of no use besides."""
    user_id = await shop.served.new_wallet()
    snapshot, other = await shop.put(price(plan())), await shop.put(price(plan()))
    coupon = await shop.new_coupon(
        usage_limit=1,
        user_usage_limit=1,
        min_purchase_amount=Price(usd_micros=TEN_USD + 1),
        applicable_package_ids=[str(other["package_id"])],
    )
    await shop.redeem(user_id, coupon.code)
    now_ms = shop.clock()
    await shop.change_coupon(coupon, valid_until_time=moment(now_ms))
    quoted = await shop.quote(snapshot, user_id=user_id, coupon_code=coupon.code)
    assert reasons(quoted) == [
        "COUPON_NOT_A_DISCOUNT",
        "COUPON_NOT_FOR_PACKAGE",
        "COUPON_EXPIRED",
        "COUPON_USED_UP",
        "COUPON_USED_BY_USER",
        "COUPON_MINIMUM_NOT_MET",
    ]
    # Whether a user has used it is for that user.
    quoted = await shop.quote(snapshot, user_id="", coupon_code=coupon.code)
    assert "COUPON_USED_BY_USER" not in reasons(quoted)
    assert "COUPON_USED_UP" in reasons(quoted)
