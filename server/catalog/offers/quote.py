"""What a purchase would cost and give, with every reason against it. Pure."""

from typing import NamedTuple

from bson import ObjectId

from server.catalog.offers import coupons
from server.catalog.offers.model import Coupon, Currency, SoldPlan
from server.kernel.errors import DomainError, Reason
from server.ledger.model import Cause, IncreaseSource, Period, Profile, Terms, new_wallet
from server.ledger.periods import Start, begin


class Purchase(NamedTuple):
    """What is asked for. `user_id` and `coupon_code` are "" for none."""

    user_id: str
    package_id: ObjectId
    plan_id: ObjectId
    currency: int
    coupon_code: str = ""


class CouponAsked(NamedTuple):
    """A coupon that is to count, and how often the user has used it."""

    coupon: Coupon
    used_by_user: int = 0


class Quote(NamedTuple):
    """What it comes to, in micro-units of the currency; 0 where it is not sold.

    0 <= discount <= price, and amount = price - discount.
    """

    price_micros: int
    discount_micros: int
    refusals: tuple[DomainError, ...]

    @property
    def amount_micros(self) -> int:
        """What would be paid."""
        return self.price_micros - self.discount_micros


def quote(
    purchase: Purchase, sold: SoldPlan | None, asked: CouponAsked | None, now_ms: int
) -> Quote:
    """The price, the discount and every reason against the purchase or its coupon.

    `sold`: what is sold of it; None: nothing. `asked`: the coupon of its code; None: there is none.
    """
    currency = purchase.currency
    price = None if sold is None else sold.price.of(currency)
    refusals = _sale_refusals(purchase, sold, price)
    if not purchase.coupon_code:
        return Quote(price or 0, 0, tuple(refusals))
    against = _coupon_refusals(purchase, price, asked, now_ms)
    discount = 0
    if asked is not None and price is not None and not against:
        discount = coupons.discount_micros(asked.coupon, price, currency)
    return Quote(price or 0, discount, (*refusals, *against))


def period(terms: Terms, profile: Profile, now_ms: int) -> Period:
    """The time that they would give if they began now, by the rule that will begin them.

    FIELD_INVALID for an end that cannot be told.
    """
    start = Start(ObjectId(), IncreaseSource.PAYMENT, Cause(""), now_ms)
    # On a wallet that has nothing but the profile, there is room for any credits.
    _, entry = begin(new_wallet(profile), terms, start, now_ms)
    assert entry.period is not None
    return entry.period


def _sale_refusals(
    purchase: Purchase, sold: SoldPlan | None, price: int | None
) -> list[DomainError]:
    if sold is None:
        ids = {"package_id": purchase.package_id, "plan_id": purchase.plan_id}
        text = "the package is not sold, or not for this plan"
        return [DomainError(Reason.PACKAGE_NOT_SOLD, text, ids)]
    if price is None:
        name = Currency(purchase.currency).name
        text = f"the package has no price in {name}"
        return [DomainError(Reason.CURRENCY_NOT_SOLD, text, {"currency": name})]
    return []


def _coupon_refusals(
    purchase: Purchase, price: int | None, asked: CouponAsked | None, now_ms: int
) -> list[DomainError]:
    if asked is None:
        return [coupons.not_found(purchase.coupon_code.upper())]
    coupon, used = asked
    return [
        *coupons.discount_refusals(coupon, purchase.package_id),
        *coupons.use_refusals(coupon, now_ms, used),
        *coupons.currency_refusals(coupon, purchase.currency),
        *([] if price is None else coupons.minimum_refusals(coupon, price, purchase.currency)),
    ]
