"""A coupon's use: counted in the transaction of what it is used for, or not at all."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from bson import ObjectId

from server.catalog.offers import coupons
from server.catalog.offers.coupons import Refusals
from server.catalog.offers.documents import coupon_from
from server.catalog.offers.model import Coupon
from server.catalog.offers.store import (
    COUPON_REDEMPTIONS,
    COUPON_USERS,
    COUPONS,
    CouponStore,
    user_key,
)
from server.kernel.clock import DAY_MS
from server.kernel.errors import DomainError, Reason
from server.kernel.ids import new_id
from server.ledger.model import NEVER_MS
from server.ledger.riders import Document, Rider, RowKey, Rows
from server.mongo.database import Database
from server.resources.fields import date

Judge = Callable[[Coupon, int], Refusals]
"""Why a coupon, as it is then, is refused to a user who has used it so often."""


class CouponUse:
    """Finds coupons, and brings the counting of their use to the ledger."""

    def __init__(self, database: Database) -> None:
        self._store = CouponStore(database)

    async def discount_rider(
        self,
        code: str,
        user_id: str,
        package_id: ObjectId,
        now_ms: int,
        links: Mapping[str, Any] | None = None,
    ) -> tuple[ObjectId, Rider]:
        """The coupon's id, and what counts its use for a purchase of the package.

        `now_ms`: when the purchase was agreed on, which may be before it is counted.
        `links`: what to keep with the use beside whose it was and when, as a payment's id.
        COUPON_NOT_FOUND. The rider refuses by COUPON_NOT_FOUND, COUPON_NOT_A_DISCOUNT,
        COUPON_NOT_FOR_PACKAGE, COUPON_EXPIRED, COUPON_NOT_YET_VALID, COUPON_USED_UP and
        COUPON_USED_BY_USER.
        """
        coupon = await self.find(code)

        def judge(present: Coupon, used: int) -> Refusals:
            refusals = coupons.use_refusals(present, now_ms, used)
            return coupons.discount_refusals(present, package_id) + refusals

        return coupon.id, use_rider(coupon, user_id, judge, links or {})

    async def find(self, code: str) -> Coupon:
        """The live coupon of a code, in any case. COUPON_NOT_FOUND."""
        coupon = await self._store.find(code)
        if coupon is None:
            raise coupons.not_found(code.upper())
        return coupon

    async def redeemable(self, code: str) -> Coupon:
        """The same if it is worth credits. COUPON_NOT_FOUND, COUPON_NOT_REDEEMABLE."""
        coupon = await self.find(code)
        for refusal in coupons.redemption_refusals(coupon):
            raise refusal
        return coupon


def expiry_ms(coupon: Coupon, now_ms: int) -> int:
    """Until when credits are good that it grants now."""
    return now_ms + coupon.credits_days * DAY_MS if coupon.credits_days else NEVER_MS


def redemption_rider(coupon: Coupon, user_id: str, now_ms: int, links: Mapping[str, Any]) -> Rider:
    """What counts the use of a coupon whose credits are granted, as it is found here.

    It refuses by COUPON_NOT_FOUND, COUPON_NOT_REDEEMABLE, COUPON_EXPIRED, COUPON_NOT_YET_VALID,
    COUPON_USED_UP, COUPON_USED_BY_USER, and CONTENTION when it is worth something else by then.
    """

    def judge(present: Coupon, used: int) -> Refusals:
        refusals = coupons.redemption_refusals(present)
        refusals += coupons.use_refusals(present, now_ms, used)
        return refusals + ([] if _worth(present) == _worth(coupon) else [_changed(coupon)])

    return use_rider(coupon, user_id, judge, links)


def use_rider(coupon: Coupon, user_id: str, judge: Judge, links: Mapping[str, Any]) -> Rider:
    """Counts one use, unless `judge` has a reason against it or the coupon is gone by then."""
    keys = RowKey(COUPONS, coupon.id), RowKey(COUPON_USERS, user_key(coupon.id, user_id))
    use = {"_id": new_id(), "coupon_id": coupon.id, "user_id": ObjectId(user_id), **links}
    return Rider(keys, partial(_count, coupon.code, keys, judge, use))


def _count(
    code: str,
    keys: tuple[RowKey, RowKey],
    judge: Judge,
    use: Document,
    rows: Rows,
    now_ms: int,
) -> dict[RowKey, Document]:
    coupon_key, user = keys
    row = rows[coupon_key]
    # A code that has another coupon by now is not this one's to count.
    if row is None or row["code"] != code:
        raise coupons.not_found(code)
    known = rows[user] or _first(use, user)
    for refusal in judge(coupon_from(row), known["count"]):
        raise refusal
    redemption = {**use, "code": code, "created_time": date(now_ms)}
    return {
        coupon_key: {**row, "usage_count": row.get("usage_count", 0) + 1},
        user: {**known, "count": known["count"] + 1},
        RowKey(COUPON_REDEMPTIONS, use["_id"]): redemption,
    }


def _first(use: Document, user: RowKey) -> Document:
    ids = {"coupon_id": use["coupon_id"], "user_id": use["user_id"]}
    return {"_id": user.id, **ids, "count": 0, "version": 1, "guard": 0}


def _worth(coupon: Coupon) -> tuple[int, int]:
    return coupon.credits_micros, coupon.credits_days


def _changed(coupon: Coupon) -> DomainError:
    text = "the coupon was changed while it was redeemed"
    return DomainError(Reason.CONTENTION, text, {"code": coupon.code, "attempts": 1})
