"""What offers and coupons are read from, and the collections of coupons' uses."""

from collections.abc import Collection as Several
from typing import Any, Final

from bson import ObjectId

from server.catalog.offers.documents import coupon_from
from server.catalog.offers.model import Coupon
from server.catalog.packages.resources import COUPONS as COUPON_RESOURCE
from server.catalog.packages.resources import PACKAGE_HISTORIES, PACKAGES
from server.mongo.database import Database
from server.mongo.errors import reachable
from server.mongo.schema import Collection, Index

MAX_PACKAGES: Final = 1_000
"""Packages that are listed at most."""

COUPONS: Final = COUPON_RESOURCE.collection

COUPON_USERS: Final = "coupon_users"
"""How often each user has used each coupon, by `user_key`."""

COUPON_REDEMPTIONS: Final = "coupon_redemptions"
"""Each use of a coupon: whose, when, and what for. Never changed."""

COLLECTIONS = (
    Collection(COUPON_USERS),
    Collection(
        COUPON_REDEMPTIONS,
        (
            Index((("coupon_id", 1), ("created_time", 1), ("_id", 1))),
            Index((("user_id", 1), ("created_time", 1), ("_id", 1))),
        ),
    ),
)

Document = dict[str, Any]

_FEATURE: Final = ("_id", "name", "value", "description", "type", "parent_id", "is_active")
_SHOWN: Final = {
    **dict.fromkeys(("package_id", "name", "value", "description", "content", "badge"), 1),
    **dict.fromkeys(("type", "points", "sequence", "is_initial", "plans"), 1),
    **{f"features.{name}": 1 for name in _FEATURE},
}
"""Of a snapshot, what an offer is made of."""


def user_key(coupon_id: ObjectId, user_id: str) -> str:
    """The id of the row that counts a user's uses of a coupon."""
    return f"{coupon_id}:{user_id}"


class CouponStore:
    """Coupons by their code. Every method: DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, code: str) -> Coupon | None:
        """The live coupon of a code, in any case; None: there is none, or it is switched off."""
        query = {"code": code.upper(), "is_deleted": False, "is_active": True}
        with reachable():
            row = await self._database.collection(COUPONS).find_one(query)
        return None if row is None else coupon_from(row)

    async def uses(self, coupon_id: ObjectId, user_id: str) -> int:
        """How often the user has used it."""
        with reachable():
            rows = self._database.collection(COUPON_USERS)
            row = await rows.find_one({"_id": user_key(coupon_id, user_id)})
        return 0 if row is None else int(row["count"])


class OfferStore:
    """The packages that are sold, by their present snapshots. Every method: DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._packages = database.collection(PACKAGES.collection)

    async def offered(self, known: Several[ObjectId]) -> list[Document]:
        """The packages that may be sold, by `_id` and `history_id`, in one round trip.

        Then once more those whose history_id is not `known`, with `snapshot`, a list of that row.
        A package that changes meanwhile may be told of in two ways: the later one is right.
        """
        sold = {"is_deleted": False, "is_active": True}
        shown: list[Document] = [{"$project": _SHOWN}]
        # Apart, because looking for what is known already takes most of the time.
        unknown: list[Document] = [
            {"$match": {**sold, "history_id": {"$exists": True, "$nin": list(known)}}},
            {"$limit": MAX_PACKAGES},
            {"$project": {"history_id": 1}},
            {"$lookup": _snapshot(shown)},
        ]
        stages: list[Document] = [
            {"$match": sold},
            {"$limit": MAX_PACKAGES},
            {"$project": {"history_id": 1}},
            {"$unionWith": {"coll": PACKAGES.collection, "pipeline": unknown}},
        ]
        return await self._aggregate(stages, 2 * MAX_PACKAGES)

    async def snapshot(self, package_id: ObjectId) -> Document | None:
        """What an active package is sold under; None: it is not sold."""
        query = {"_id": package_id, "is_deleted": False, "is_active": True}
        left_out: list[Document] = [{"$project": {"features": 0, "content": 0}}]
        stages: list[Document] = [{"$match": query}, {"$lookup": _snapshot(left_out)}]
        rows = await self._aggregate(stages, 1)
        return next((snapshot for row in rows for snapshot in row["snapshot"]), None)

    async def _aggregate(self, stages: list[Document], batch_size: int) -> list[Document]:
        with reachable():
            cursor = await self._packages.aggregate(stages, batchSize=batch_size + 1)
            return await cursor.to_list()


def _snapshot(pipeline: list[Document]) -> Document:
    source = {"from": PACKAGE_HISTORIES.collection, "foreignField": "_id"}
    return {**source, "localField": "history_id", "as": "snapshot", "pipeline": pipeline}
