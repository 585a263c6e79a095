# ruff: noqa: N818 - the classes carry the names of the contract's reasons.
"""Errors of what is sold: packages, subscriptions, coupons. `errors` draws the tree."""

from zaaz_client.errors import Conflict, NotFound, UsageRefused, ZaazError


class PurchaseRefused(ZaazError):
    """It cannot be bought, or not so."""


class PackageNotSold(PurchaseRefused):
    """The package is not sold, or not for this plan."""

    reasons = ("PACKAGE_NOT_SOLD",)


class CurrencyNotSold(PurchaseRefused):
    """The package has no price in this currency."""

    reasons = ("CURRENCY_NOT_SOLD",)


class InitialPackageMissing(PurchaseRefused):
    """No package is initial, or it cannot be given."""

    reasons = ("INITIAL_PACKAGE_MISSING",)


class PaymentAlreadyUsed(PurchaseRefused):
    """The payment has brought a package before; metadata has its `credits_transaction_id`."""

    reasons = ("PAYMENT_ALREADY_USED",)


class CouponRefused(PurchaseRefused):
    """The coupon does not count; metadata has its `code`."""


class CouponExpired(CouponRefused):
    """Its time is over; metadata has `valid_until_time`."""

    reasons = ("COUPON_EXPIRED",)


class CouponNotYetValid(CouponRefused):
    """Its time is to come; metadata has `valid_from_time`."""

    reasons = ("COUPON_NOT_YET_VALID",)


class CouponUsedUp(CouponRefused):
    """It was used as often as it may be; metadata has the `limit`."""

    reasons = ("COUPON_USED_UP",)


class CouponUsedByUser(CouponRefused):
    """The user has used it as often as one may; metadata has the `limit`."""

    reasons = ("COUPON_USED_BY_USER",)


class CouponMinimumNotMet(CouponRefused):
    """The price is below its minimum; metadata has `minimum_micros`."""

    reasons = ("COUPON_MINIMUM_NOT_MET",)


class CouponNotForPackage(CouponRefused):
    """It is for other packages."""

    reasons = ("COUPON_NOT_FOR_PACKAGE",)


class CouponNotForCurrency(CouponRefused):
    """It is for other currencies."""

    reasons = ("COUPON_NOT_FOR_CURRENCY",)


class CouponNotADiscount(CouponRefused):
    """It is worth credits: redeem it."""

    reasons = ("COUPON_NOT_A_DISCOUNT",)


class CouponNotRedeemable(CouponRefused):
    """It makes purchases cheaper and is worth no credits."""

    reasons = ("COUPON_NOT_REDEEMABLE",)


class CouponNotFound(NotFound):
    """No active coupon has this code."""

    reasons = ("COUPON_NOT_FOUND",)


class SubscriptionNotFound(NotFound):
    """The user has no package that runs."""

    reasons = ("SUBSCRIPTION_NOT_FOUND",)


class InitialRequired(Conflict):
    """One of these rows has to be the initial one: make another initial first."""

    reasons = ("INITIAL_REQUIRED",)


class FeatureNotIncluded(UsageRefused):
    """The user's package does not include the endpoint's feature."""

    reasons = ("FEATURE_NOT_INCLUDED",)
