"""What rides with the ledger's transaction: pure, and right for the rows that it is given."""

from typing import Any

import pytest
from bson import ObjectId

from server.catalog.offers.coupon_use import expiry_ms, redemption_rider
from server.catalog.offers.documents import coupon_from
from server.kernel.clock import DAY_MS
from server.kernel.errors import DomainError
from server.ledger.model import NEVER_MS
from server.ledger.riders import Document, RowKey
from server.resources.fields import date
from tests.offers.test_coupons import NOW_MS

USER = "65f000000000000000000001"
LINKS = {"client_id": "shop", "request_id": "r-1"}


def coupon_row(**fields: Any) -> Document:
    row = {"code": "WELCOME", "discount_type": 3, "credits_micros": 5, "credits_days": 30}
    kept = {"is_active": True, "is_deleted": False, "version": 4, "guard": 9}
    return {"_id": ObjectId(), **row, **kept, **fields}


def test_the_first_use() -> None:
    row = coupon_row(description="kept")
    rider = redemption_rider(coupon_from(row), USER, NOW_MS, LINKS)
    coupon_key, user_key = rider.keys
    assert rider.keys == (
        RowKey("coupons", row["_id"]),
        RowKey("coupon_users", f"{row['_id']}:{USER}"),
    )
    changed = dict(rider.change({coupon_key: row, user_key: None}, NOW_MS + 7))
    # The version stays: a use changes nothing that an operator's etag is about.
    assert changed.pop(coupon_key) == {**row, "usage_count": 1}
    ids = {"coupon_id": row["_id"], "user_id": ObjectId(USER)}
    assert changed.pop(user_key) == {
        "_id": user_key.id,
        **ids,
        "count": 1,
        "version": 1,
        "guard": 0,
    }
    ((use_key, use),) = changed.items()
    assert use_key == RowKey("coupon_redemptions", use["_id"])
    moment = date(NOW_MS + 7)
    expected = {"_id": use_key.id, **ids, **LINKS, "code": "WELCOME", "created_time": moment}
    assert use == expected


def test_it_may_be_run_again_on_other_rows() -> None:
    row = coupon_row(usage_limit=3, usage_count=1)
    rider = redemption_rider(coupon_from(row), USER, NOW_MS, LINKS)
    coupon_key, user_key = rider.keys
    known = {"_id": user_key.id, "count": 4, "version": 1, "guard": 2}
    given = {coupon_key: row, user_key: known}
    first = rider.change(given, NOW_MS)
    assert rider.change(given, NOW_MS) == first
    assert first[user_key]["count"] == 5
    assert (row["usage_count"], known["count"]) == (1, 4)
    again = rider.change({**given, coupon_key: first[coupon_key]}, NOW_MS)
    assert again[coupon_key]["usage_count"] == 3
    with pytest.raises(DomainError) as caught:
        rider.change({**given, coupon_key: again[coupon_key]}, NOW_MS)
    assert caught.value.reason == "COUPON_USED_UP"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (None, "COUPON_NOT_FOUND"),
        ({"is_active": False}, "COUPON_NOT_FOUND"),
        ({"is_deleted": True}, "COUPON_NOT_FOUND"),
        ({"code": "OTHER"}, "COUPON_NOT_FOUND"),
        ({"discount_type": 1}, "COUPON_NOT_REDEEMABLE"),
        ({"credits_micros": 0}, "COUPON_NOT_REDEEMABLE"),
        ({"credits_micros": 6}, "CONTENTION"),
        ({"credits_days": 31}, "CONTENTION"),
        ({"valid_until_time": date(NOW_MS)}, "COUPON_EXPIRED"),
        ({"valid_from_time": date(NOW_MS + 1)}, "COUPON_NOT_YET_VALID"),
        ({"usage_limit": 1, "usage_count": 1}, "COUPON_USED_UP"),
        ({"user_usage_limit": 2}, "COUPON_USED_BY_USER"),
    ],
)
def test_it_goes_by_the_row_as_it_is_then(change: Document | None, reason: str) -> None:
    row = coupon_row()
    rider = redemption_rider(coupon_from(row), USER, NOW_MS, LINKS)
    coupon_key, user_key = rider.keys
    rows = {coupon_key: None if change is None else {**row, **change}, user_key: {"count": 2}}
    with pytest.raises(DomainError) as caught:
        rider.change(rows, NOW_MS)
    assert caught.value.reason == reason
    assert caught.value.metadata["code"] == "WELCOME"


def test_until_when_credits_are_good() -> None:
    coupon = coupon_from(coupon_row())
    assert expiry_ms(coupon, NOW_MS) == NOW_MS + 30 * DAY_MS
    assert expiry_ms(coupon._replace(credits_days=0), NOW_MS) == NEVER_MS
