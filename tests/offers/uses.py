"""Holds everything that tells of a coupon's use against everything else."""

from collections import Counter
from typing import Any

from bson import ObjectId
from zaaz.catalog.v1 import coupon_pb2

from server.mongo.database import Database
from tests.serving import Served

COUPON = 3
"""The source of credits that a coupon granted."""

Document = dict[str, Any]


async def redemptions(database: Database, coupon_id: str) -> list[Document]:
    """The rows of a coupon's uses."""
    rows = database.collection("coupon_redemptions").find({"coupon_id": ObjectId(coupon_id)})
    return await rows.to_list()


async def grants(served: Served, user_id: str, code: str) -> list[Any]:
    """The user's transactions that a coupon of the code granted."""
    rows = await served.transactions(user_id)
    return [row for row in rows if (row.increase_source, row.reason) == (COUPON, f"coupon {code}")]


async def assert_books_agree(
    served: Served, database: Database, coupon: coupon_pb2.Coupon, user_ids: list[str]
) -> int:
    """The coupon's count, each user's, the rows and the grants tell of the same uses: how many."""
    rows = await redemptions(database, coupon.id)
    by_user = Counter(str(row["user_id"]) for row in rows)
    asked = {(str(row["user_id"]), row["request_id"]) for row in rows}
    assert len(asked) == len(rows)
    assert set(by_user) <= set(user_ids)
    for user_id in user_ids:
        granted = await grants(served, user_id, coupon.code)
        assert all(row.credits_micros == coupon.credits_micros for row in granted)
        assert {(user_id, row.request_id) for row in granted} == {
            pair for pair in asked if pair[0] == user_id
        }
        assert len(granted) == by_user[user_id]
        await served.assert_sound(user_id)
    counts = database.collection("coupon_users").find({"coupon_id": ObjectId(coupon.id)})
    assert {str(row["user_id"]): row["count"] for row in await counts.to_list()} == by_user
    request = coupon_pb2.GetCouponRequest(id=coupon.id)
    answer: coupon_pb2.GetCouponResponse = await served.catalog.GetCoupon(request)
    assert answer.coupon.usage_count == len(rows)
    return len(rows)
