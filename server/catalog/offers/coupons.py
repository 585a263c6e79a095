"""Which coupons count for what, and what they take off. Pure.

Each function gives every reason that it knows; who can take only one takes the first.
"""

from bson import ObjectId

from server.catalog.offers.model import Coupon, Currency, DiscountType
from server.kernel.clock import iso
from server.kernel.errors import DomainError, Reason
from server.kernel.money import MICROS

Refusals = list[DomainError]


def not_found(code: str) -> DomainError:
    """COUPON_NOT_FOUND: no coupon has the code, or it is deleted or switched off."""
    text = f"there is no coupon {code}"
    return DomainError(Reason.COUPON_NOT_FOUND, text, {"code": code})


def use_refusals(coupon: Coupon, now_ms: int, used_by_user: int) -> Refusals:
    """Why it cannot be used now by one who has used it so often, whatever for.

    COUPON_NOT_FOUND alone, or COUPON_EXPIRED, COUPON_NOT_YET_VALID, COUPON_USED_UP and
    COUPON_USED_BY_USER.
    """
    if not coupon.is_live:
        return [not_found(coupon.code)]
    refusals = _untimely(coupon, now_ms)
    limit, user_limit = coupon.usage_limit, coupon.user_usage_limit
    if limit and coupon.usage_count >= limit:
        text = f"the coupon was used {limit} times, as often as it may be"
        refusals.append(_refusal(Reason.COUPON_USED_UP, text, coupon, limit=limit))
    if user_limit and used_by_user >= user_limit:
        text = f"the user has used the coupon {user_limit} times, as often as one may"
        refusals.append(_refusal(Reason.COUPON_USED_BY_USER, text, coupon, limit=user_limit))
    return refusals


def discount_refusals(coupon: Coupon, package_id: ObjectId) -> Refusals:
    """Why it makes no purchase of the package cheaper.

    COUPON_NOT_A_DISCOUNT, COUPON_NOT_FOR_PACKAGE.
    """
    refusals = []
    if coupon.discount_type == DiscountType.CREDITS:
        text = "the coupon is worth credits and makes no purchase cheaper"
        refusals.append(_refusal(Reason.COUPON_NOT_A_DISCOUNT, text, coupon))
    if coupon.package_ids and package_id not in coupon.package_ids:
        text = "the coupon is for other packages"
        refusal = _refusal(Reason.COUPON_NOT_FOR_PACKAGE, text, coupon, package_id=package_id)
        refusals.append(refusal)
    return refusals


def minimum_refusals(coupon: Coupon, price_micros: int, currency: int) -> Refusals:
    """COUPON_MINIMUM_NOT_MET for a price that is too low."""
    minimum = coupon.minimum.of(currency)
    if minimum is None or price_micros >= minimum:
        return []
    text = f"the coupon counts for prices of {minimum} micro-units and more"
    metadata = {"minimum_micros": minimum, "price_micros": price_micros}
    return [_refusal(Reason.COUPON_MINIMUM_NOT_MET, text, coupon, **metadata)]


def currency_refusals(coupon: Coupon, currency: int) -> Refusals:
    """COUPON_NOT_FOR_CURRENCY for a fixed amount that it does not have in the currency."""
    if coupon.discount_type != DiscountType.FIXED or coupon.fixed.of(currency) is not None:
        return []
    name = Currency(currency).name
    text = f"the coupon takes nothing off prices in {name}"
    return [_refusal(Reason.COUPON_NOT_FOR_CURRENCY, text, coupon, currency=name)]


def redemption_refusals(coupon: Coupon) -> Refusals:
    """COUPON_NOT_REDEEMABLE for one that is worth no credits."""
    if coupon.discount_type == DiscountType.CREDITS and coupon.credits_micros > 0:
        return []
    text = "the coupon is worth no credits"
    return [_refusal(Reason.COUPON_NOT_REDEEMABLE, text, coupon)]


def discount_micros(coupon: Coupon, price_micros: int, currency: int) -> int:
    """What it takes off a price that it counts for: 0 to the price.

    A percentage is rounded down: what is paid is never less than its exact part.
    """
    if coupon.discount_type == DiscountType.PERCENTAGE:
        off = price_micros * coupon.discount_ppm // MICROS
    elif coupon.discount_type == DiscountType.FIXED:
        off = coupon.fixed.of(currency) or 0
    else:
        off = 0
    maximum = coupon.maximum.of(currency)
    return min(off, price_micros, off if maximum is None else maximum)


def _untimely(coupon: Coupon, now_ms: int) -> Refusals:
    refusals = []
    begins, ends = coupon.valid_from_ms, coupon.valid_until_ms
    if ends is not None and now_ms >= ends:
        text = "the coupon's time is over"
        metadata = {"valid_until_time": iso(ends)}
        refusals.append(_refusal(Reason.COUPON_EXPIRED, text, coupon, **metadata))
    if begins is not None and now_ms < begins:
        text = "the coupon's time is to come"
        metadata = {"valid_from_time": iso(begins)}
        refusals.append(_refusal(Reason.COUPON_NOT_YET_VALID, text, coupon, **metadata))
    return refusals


def _refusal(reason: Reason, text: str, coupon: Coupon, **metadata: object) -> DomainError:
    return DomainError(reason, text, {"code": coupon.code, **metadata})
