"""Rows of the catalog as what the rules of offers go by."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bson import ObjectId

from server.catalog.offers.model import Amounts, Coupon, SoldPlan
from server.catalog.packages.sold import terms_of
from server.resources.fields import millis

Document = dict[str, Any]
Row = Mapping[str, Any]


def coupon_from(row: Row) -> Coupon:
    """A coupon's row."""
    return Coupon(
        id=row["_id"],
        code=row["code"],
        discount_type=row["discount_type"],
        discount_ppm=row.get("discount_ppm", 0),
        fixed=_amounts(row.get("fixed_amount")),
        minimum=_amounts(row.get("min_purchase_amount")),
        maximum=_amounts(row.get("max_discount_amount")),
        credits_micros=row.get("credits_micros", 0),
        credits_days=row.get("credits_days", 0),
        valid_from_ms=_millis(row.get("valid_from_time")),
        valid_until_ms=_millis(row.get("valid_until_time")),
        usage_limit=row.get("usage_limit", 0),
        user_usage_limit=row.get("user_usage_limit", 0),
        usage_count=row.get("usage_count", 0),
        package_ids=frozenset(row.get("applicable_package_ids", ())),
        is_live=row.get("is_active", False) and not row["is_deleted"],
    )


def sold_plans(snapshot: Row) -> list[Document]:
    """The prices of a snapshot that are sold, in its order: those active whose plan is too."""
    plans = snapshot.get("plans", ())
    return [price for price in plans if _is_sold(price) and _is_sold(price["plan"])]


def sold_plan(snapshot: Row, plan_id: ObjectId) -> SoldPlan | None:
    """What a snapshot sells under a plan; None: nothing."""
    for price in sold_plans(snapshot):
        if price["plan_id"] == plan_id:
            return SoldPlan(terms_of(snapshot, price), _amounts(price.get("price")))
    return None


def _is_sold(row: Row) -> bool:
    return bool(row.get("is_active", False)) and not row.get("is_deleted", False)


def _amounts(row: Row | None) -> Amounts:
    return Amounts() if row is None else Amounts(row.get("usd_micros"), row.get("bdt_micros"))


def _millis(moment: datetime | None) -> int | None:
    return None if moment is None else millis(moment)
