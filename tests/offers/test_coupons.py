"""What coupons take off, and every reason against one: tables, and rules for all amounts."""

from fractions import Fraction
from typing import Any

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from server.catalog.offers import coupons
from server.catalog.offers.model import Amounts, Coupon, Currency, DiscountType
from server.kernel.errors import DomainError
from server.kernel.money import MAX_MICROS

USD, BDT = Currency.USD, Currency.BDT
NOW_MS = 1_790_000_000_000
PERCENTAGE = DiscountType.PERCENTAGE
FIXED = DiscountType.FIXED
CREDITS = DiscountType.CREDITS
PACKAGE, OTHER = ObjectId(), ObjectId()


def coupon(discount_type: int = PERCENTAGE, **fields: Any) -> Coupon:
    return Coupon(ObjectId(), "WELCOME", discount_type, **fields)


def reasons(refusals: list[DomainError]) -> list[str]:
    return [refusal.reason.value for refusal in refusals]


@pytest.mark.parametrize(
    ("some", "price", "currency", "off"),
    [
        (coupon(discount_ppm=0), 10_000_000, USD, 0),
        (coupon(discount_ppm=200_000), 10_000_000, USD, 2_000_000),
        (coupon(discount_ppm=1_000_000), 10_000_000, USD, 10_000_000),
        # A third of a cent in micro-units, rounded down.
        (coupon(discount_ppm=333_333), 10, USD, 3),
        (coupon(discount_ppm=999_999), 1, USD, 0),
        (coupon(discount_ppm=500_000), 0, USD, 0),
        (coupon(discount_ppm=500_000, maximum=Amounts(1_000)), 9_000, USD, 1_000),
        (coupon(discount_ppm=500_000, maximum=Amounts(0)), 9_000, USD, 0),
        # The bound is that of the other currency.
        (coupon(discount_ppm=500_000, maximum=Amounts(1_000)), 9_000, BDT, 4_500),
        (coupon(FIXED, fixed=Amounts(3_000)), 9_000, USD, 3_000),
        (coupon(FIXED, fixed=Amounts(3_000)), 2_000, USD, 2_000),
        (coupon(FIXED, fixed=Amounts(3_000, 70)), 9_000, BDT, 70),
        (coupon(FIXED, fixed=Amounts(3_000), maximum=Amounts(500)), 9_000, USD, 500),
        (coupon(FIXED, fixed=Amounts(3_000)), 9_000, BDT, 0),
        (coupon(CREDITS, credits_micros=5, discount_ppm=500_000), 9_000, USD, 0),
    ],
)
def test_discounts(some: Coupon, price: int, currency: int, off: int) -> None:
    assert coupons.discount_micros(some, price, currency) == off


MICROS = st.integers(0, MAX_MICROS)
AMOUNTS = st.builds(Amounts, st.none() | MICROS, st.none() | MICROS)
COUPONS = st.builds(
    coupon,
    st.sampled_from(DiscountType),
    discount_ppm=st.integers(0, 1_000_000),
    fixed=AMOUNTS,
    maximum=AMOUNTS,
)


@given(COUPONS, MICROS, st.sampled_from(Currency))
def test_a_discount_is_at_most_the_price_and_its_bound(
    some: Coupon, price: int, currency: Currency
) -> None:
    off = coupons.discount_micros(some, price, currency)
    assert 0 <= off <= price
    maximum = some.maximum.of(currency)
    assert maximum is None or off <= maximum


@given(st.integers(0, 1_000_000), MICROS)
def test_a_percentage_is_its_exact_part_less_a_fraction(ppm: int, price: int) -> None:
    off = coupons.discount_micros(coupon(discount_ppm=ppm), price, USD)
    assert 0 <= Fraction(price * ppm, 1_000_000) - off < 1


@given(COUPONS, MICROS, MICROS, st.sampled_from(Currency))
def test_a_higher_price_is_not_discounted_less(
    some: Coupon, price: int, other: int, currency: Currency
) -> None:
    low, high = sorted((price, other))
    discounts = [coupons.discount_micros(some, each, currency) for each in (low, high)]
    assert discounts == sorted(discounts)


@pytest.mark.parametrize(
    ("fields", "used", "expected"),
    [
        ({}, 0, []),
        ({}, 10**6, []),
        ({"is_live": False, "valid_until_ms": NOW_MS}, 0, ["COUPON_NOT_FOUND"]),
        ({"valid_until_ms": NOW_MS + 1}, 0, []),
        ({"valid_until_ms": NOW_MS}, 0, ["COUPON_EXPIRED"]),
        ({"valid_from_ms": NOW_MS}, 0, []),
        ({"valid_from_ms": NOW_MS + 1}, 0, ["COUPON_NOT_YET_VALID"]),
        ({"usage_limit": 3, "usage_count": 2}, 0, []),
        ({"usage_limit": 3, "usage_count": 3}, 0, ["COUPON_USED_UP"]),
        # The limit was lowered since.
        ({"usage_limit": 2, "usage_count": 3}, 0, ["COUPON_USED_UP"]),
        ({"user_usage_limit": 1}, 0, []),
        ({"user_usage_limit": 1}, 1, ["COUPON_USED_BY_USER"]),
        (
            {
                "valid_until_ms": NOW_MS,
                "valid_from_ms": NOW_MS + 1,
                "usage_limit": 1,
                "usage_count": 1,
                "user_usage_limit": 1,
            },
            1,
            [
                "COUPON_EXPIRED",
                "COUPON_NOT_YET_VALID",
                "COUPON_USED_UP",
                "COUPON_USED_BY_USER",
            ],
        ),
    ],
)
def test_uses(fields: dict[str, Any], used: int, expected: list[str]) -> None:
    assert reasons(coupons.use_refusals(coupon(**fields), NOW_MS, used)) == expected


@pytest.mark.parametrize(
    ("some", "expected"),
    [
        (coupon(), []),
        (coupon(package_ids=frozenset([PACKAGE, OTHER])), []),
        (coupon(package_ids=frozenset([OTHER])), ["COUPON_NOT_FOR_PACKAGE"]),
        (coupon(FIXED), []),
        (coupon(CREDITS), ["COUPON_NOT_A_DISCOUNT"]),
        (
            coupon(CREDITS, package_ids=frozenset([OTHER])),
            ["COUPON_NOT_A_DISCOUNT", "COUPON_NOT_FOR_PACKAGE"],
        ),
    ],
)
def test_packages(some: Coupon, expected: list[str]) -> None:
    assert reasons(coupons.discount_refusals(some, PACKAGE)) == expected


@pytest.mark.parametrize(
    ("some", "price", "currency", "expected"),
    [
        (coupon(minimum=Amounts(100)), 100, USD, []),
        (coupon(minimum=Amounts(100)), 99, USD, ["COUPON_MINIMUM_NOT_MET"]),
        (coupon(minimum=Amounts(100)), 99, BDT, []),
        (coupon(FIXED, fixed=Amounts(0)), 99, USD, []),
        (coupon(FIXED, fixed=Amounts(5)), 99, BDT, ["COUPON_NOT_FOR_CURRENCY"]),
        (coupon(PERCENTAGE, fixed=Amounts(5)), 99, BDT, []),
    ],
)
def test_prices(some: Coupon, price: int, currency: int, expected: list[str]) -> None:
    refusals = coupons.minimum_refusals(some, price, currency)
    assert reasons(refusals + coupons.currency_refusals(some, currency)) == expected


@pytest.mark.parametrize(
    ("some", "expected"),
    [
        (coupon(CREDITS, credits_micros=1), []),
        (coupon(CREDITS), ["COUPON_NOT_REDEEMABLE"]),
        (coupon(PERCENTAGE, credits_micros=1), ["COUPON_NOT_REDEEMABLE"]),
        (coupon(FIXED, credits_micros=1), ["COUPON_NOT_REDEEMABLE"]),
    ],
)
def test_redeeming(some: Coupon, expected: list[str]) -> None:
    assert reasons(coupons.redemption_refusals(some)) == expected


def test_reasons_say_what_they_rest_on() -> None:
    some = coupon(
        valid_until_ms=NOW_MS,
        valid_from_ms=NOW_MS + 1,
        usage_limit=2,
        usage_count=2,
        user_usage_limit=1,
        minimum=Amounts(100),
        package_ids=frozenset([OTHER]),
    )
    refusals = coupons.use_refusals(some, NOW_MS, 1) + coupons.discount_refusals(some, PACKAGE)
    refusals += coupons.minimum_refusals(some, 99, USD)
    code = {"code": "WELCOME"}
    assert [refusal.metadata for refusal in refusals] == [
        {**code, "valid_until_time": "2026-09-21T14:13:20.000Z"},
        {**code, "valid_from_time": "2026-09-21T14:13:20.001Z"},
        {**code, "limit": "2"},
        {**code, "limit": "1"},
        {**code, "package_id": str(PACKAGE)},
        {**code, "minimum_micros": "100", "price_micros": "99"},
    ]
