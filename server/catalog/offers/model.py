"""What is sold and what makes it cheaper. Immutable; amounts in micro-units of their currency."""

from enum import IntEnum
from typing import NamedTuple

from bson import ObjectId

from server.ledger.model import Terms


class Currency(IntEnum):
    """`zaaz.catalog.v1.Currency`."""

    USD = 1
    BDT = 2


class DiscountType(IntEnum):
    """`zaaz.catalog.v1.DiscountType`."""

    PERCENTAGE = 1
    FIXED = 2
    CREDITS = 3


class Amounts(NamedTuple):
    """An amount in each currency; None: not in this one."""

    usd_micros: int | None = None
    bdt_micros: int | None = None

    def of(self, currency: int) -> int | None:
        """The amount in a currency."""
        return self.usd_micros if currency == Currency.USD else self.bdt_micros


class Coupon(NamedTuple):
    """A coupon as its row has it. A limit of 0 is none; `is_live`: active and not deleted."""

    id: ObjectId
    code: str
    discount_type: int
    discount_ppm: int = 0
    fixed: Amounts = Amounts()
    minimum: Amounts = Amounts()
    maximum: Amounts = Amounts()
    credits_micros: int = 0
    credits_days: int = 0
    valid_from_ms: int | None = None
    valid_until_ms: int | None = None
    usage_limit: int = 0
    user_usage_limit: int = 0
    usage_count: int = 0
    package_ids: frozenset[ObjectId] = frozenset()
    is_live: bool = True


class SoldPlan(NamedTuple):
    """A package with one of its plans, as it is sold now."""

    terms: Terms
    price: Amounts
