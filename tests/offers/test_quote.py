"""What a purchase comes to: every reason at once, and amounts that add up."""

from typing import Any

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from server.catalog.offers.model import Amounts, Coupon, Currency, DiscountType, SoldPlan
from server.catalog.offers.quote import CouponAsked, Purchase, period, quote
from server.kernel.clock import DAY_MS
from server.ledger.model import NEVER_MS, PackageEvent, Profile, Subscription, Terms
from tests.offers.test_coupons import COUPONS, MICROS, NOW_MS

USD, BDT = Currency.USD, Currency.BDT
PACKAGE, PLAN = ObjectId(), ObjectId()
PRICE = 20_000_000
TERMS = Terms(
    PACKAGE,
    PLAN,
    package_plan_id=ObjectId(),
    package_history_id=ObjectId(),
    credits_micros=7_000_000,
    duration_ms=30 * DAY_MS,
    is_paid=True,
    is_subscription=True,
)
SOLD = SoldPlan(TERMS, Amounts(PRICE))
TWENTY_PERCENT = Coupon(ObjectId(), "SAVE20", DiscountType.PERCENTAGE, discount_ppm=200_000)


def purchase(currency: int = USD, code: str = "") -> Purchase:
    return Purchase("", PACKAGE, PLAN, currency, code)


def test_a_price_without_a_coupon() -> None:
    assert quote(purchase(), SOLD, None, NOW_MS) == (PRICE, 0, ())


def test_a_price_with_a_coupon() -> None:
    made = quote(purchase(code="SAVE20"), SOLD, CouponAsked(TWENTY_PERCENT), NOW_MS)
    assert (made.price_micros, made.discount_micros) == (PRICE, 4_000_000)
    assert made.amount_micros == 16_000_000
    assert made.refusals == ()


def test_a_refused_coupon_takes_nothing_off() -> None:
    used_up = TWENTY_PERCENT._replace(usage_limit=1, usage_count=1)
    made = quote(purchase(code="SAVE20"), SOLD, CouponAsked(used_up), NOW_MS)
    assert made[:2] == (PRICE, 0)
    assert [refusal.reason for refusal in made.refusals] == ["COUPON_USED_UP"]


@pytest.mark.parametrize(
    ("sold", "currency", "code", "coupon", "expected"),
    [
        (None, USD, "", None, ["PACKAGE_NOT_SOLD"]),
        (SOLD, BDT, "", None, ["CURRENCY_NOT_SOLD"]),
        (SOLD, USD, "NONE", None, ["COUPON_NOT_FOUND"]),
        (SOLD, USD, "SAVE20", TWENTY_PERCENT._replace(is_live=False), ["COUPON_NOT_FOUND"]),
        (None, BDT, "NONE", None, ["PACKAGE_NOT_SOLD", "COUPON_NOT_FOUND"]),
        (
            SOLD,
            BDT,
            "FIVE",
            Coupon(ObjectId(), "FIVE", DiscountType.FIXED, fixed=Amounts(5), minimum=Amounts(1, 1)),
            ["CURRENCY_NOT_SOLD", "COUPON_NOT_FOR_CURRENCY"],
        ),
        (
            SOLD,
            USD,
            "ALL",
            Coupon(
                ObjectId(),
                "ALL",
                DiscountType.CREDITS,
                minimum=Amounts(PRICE + 1),
                valid_from_ms=NOW_MS + 1,
                valid_until_ms=NOW_MS,
                usage_limit=1,
                usage_count=1,
                user_usage_limit=2,
                package_ids=frozenset([ObjectId()]),
            ),
            [
                "COUPON_NOT_A_DISCOUNT",
                "COUPON_NOT_FOR_PACKAGE",
                "COUPON_EXPIRED",
                "COUPON_NOT_YET_VALID",
                "COUPON_USED_UP",
                "COUPON_USED_BY_USER",
                "COUPON_MINIMUM_NOT_MET",
            ],
        ),
    ],
)
def test_every_reason_at_once(
    sold: SoldPlan | None, currency: int, code: str, coupon: Coupon | None, expected: list[str]
) -> None:
    asked = None if coupon is None else CouponAsked(coupon, used_by_user=2)
    made = quote(purchase(currency, code), sold, asked, NOW_MS)
    assert [refusal.reason for refusal in made.refusals] == expected


@given(
    st.none() | st.builds(Amounts, st.none() | MICROS, st.none() | MICROS),
    st.none() | COUPONS,
    st.sampled_from(Currency),
    st.sampled_from(["", "WELCOME"]),
)
def test_amounts_add_up(
    prices: Amounts | None, coupon: Coupon | None, currency: Currency, code: str
) -> None:
    sold = None if prices is None else SOLD._replace(price=prices)
    asked = None if coupon is None else CouponAsked(coupon)
    made = quote(purchase(currency, code), sold, asked, NOW_MS)
    assert 0 <= made.discount_micros <= made.price_micros
    assert made.amount_micros == made.price_micros - made.discount_micros
    if made.refusals:
        assert made.discount_micros == 0
    else:
        assert prices is not None
        assert made.price_micros == prices.of(currency)


def profile(**fields: Any) -> Profile:
    return Profile(ObjectId(), ObjectId(), "", NOW_MS - 9 * DAY_MS, **fields)


def having(terms: Terms, expires_ms: int) -> Profile:
    """Of a user whose package this is until then."""
    return profile(
        package_id=terms.package_id,
        plan_id=terms.plan_id,
        expires_ms=expires_ms,
        subscription=Subscription(ObjectId(), terms, NOW_MS - DAY_MS),
    )


OTHER = TERMS._replace(package_id=ObjectId())
TOP_UP = OTHER._replace(is_subscription=False)


@pytest.mark.parametrize(
    ("terms", "who", "event", "start_ms"),
    [
        (TERMS, profile(), PackageEvent.STARTED, NOW_MS),
        (TERMS, having(TERMS, NOW_MS + 5), PackageEvent.RENEWED, NOW_MS + 5),
        (TERMS, having(TERMS, NOW_MS - 5), PackageEvent.RENEWED, NOW_MS),
        (TERMS, having(TERMS, NEVER_MS), PackageEvent.RENEWED, NOW_MS),
        (OTHER, having(TERMS, NOW_MS + 5), PackageEvent.STARTED, NOW_MS),
        (TOP_UP, having(TERMS, NOW_MS + 5), PackageEvent.TOPPED_UP, NOW_MS),
    ],
)
def test_when_it_begins_and_ends(
    terms: Terms, who: Profile, event: PackageEvent, start_ms: int
) -> None:
    given = period(terms, who, NOW_MS)
    assert given.event == event
    assert (given.start_ms, given.end_ms) == (start_ms, start_ms + terms.duration_ms)
