"""What a package gives by its snapshots: what it is sold under now, or was."""

from collections.abc import Mapping
from typing import Any, Final

from bson import ObjectId
from zaaz.catalog.v1.package_pb2 import PackageType

from server.catalog.packages.resources import PACKAGE_HISTORIES, PACKAGES
from server.kernel.clock import DAY_MS
from server.kernel.errors import DomainError, Reason
from server.ledger.model import Terms
from server.mongo.database import Database
from server.mongo.errors import reachable

Document = dict[str, Any]

_LIVE: Final = {"is_deleted": False}
_SOLD: Final = {**_LIVE, "is_active": True}


class SoldPackages:
    """Every method: DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def present(self, package_id: ObjectId, plan_id: ObjectId) -> Terms:
        """What is sold now. PACKAGE_NOT_SOLD where any part of it is switched off or deleted."""
        snapshot = await self._newest({"_id": package_id, **_SOLD})
        return _terms(snapshot, package_id, plan_id, only_active=True)

    async def assignable(self, package_id: ObjectId, plan_id: ObjectId) -> Terms:
        """What there is now, switched off or not. PACKAGE_NOT_SOLD."""
        snapshot = await self._newest({"_id": package_id, **_LIVE})
        return _terms(snapshot, package_id, plan_id, only_active=False)

    async def under(self, history_id: ObjectId, package_id: ObjectId, plan_id: ObjectId) -> Terms:
        """What was sold under a snapshot, whatever has become of it. PACKAGE_NOT_SOLD."""
        query = {"_id": history_id, "package_id": package_id, **_SOLD}
        with reachable():
            snapshot = await self._database.collection(PACKAGE_HISTORIES.collection).find_one(query)
        return _terms(snapshot, package_id, plan_id, only_active=True)

    async def initial(self) -> Terms:
        """What users begin with. INITIAL_PACKAGE_MISSING."""
        snapshot = await self._newest({"is_initial": True, **_SOLD})
        prices = [] if snapshot is None else snapshot["plans"]
        price = next((one for one in prices if one.get("is_initial") and _is_sold(one)), None)
        if snapshot is None or price is None:
            raise DomainError(
                Reason.INITIAL_PACKAGE_MISSING, "no active package with an active plan is initial"
            )
        return terms_of(snapshot, price)

    async def _newest(self, query: Document) -> Document | None:
        """The snapshot that a package is sold under; None where there is no such package."""
        pipeline: list[Document] = [
            {"$match": query},
            {"$limit": 1},
            {
                "$lookup": {
                    "from": PACKAGE_HISTORIES.collection,
                    "localField": "history_id",
                    "foreignField": "_id",
                    "as": "snapshot",
                }
            },
            {"$project": {"snapshot": 1}},
        ]
        with reachable():
            found = await self._database.collection(PACKAGES.collection).aggregate(pipeline)
            rows = await found.to_list()
        snapshots = rows[0]["snapshot"] if rows else []
        return snapshots[0] if snapshots else None


def _terms(
    snapshot: Document | None, package_id: ObjectId, plan_id: ObjectId, *, only_active: bool
) -> Terms:
    prices = [] if snapshot is None else snapshot["plans"]
    price = next((one for one in prices if one["plan_id"] == plan_id), None)
    if snapshot is None or price is None or (only_active and not _is_sold(price)):
        raise DomainError(
            Reason.PACKAGE_NOT_SOLD,
            f"the package {package_id} is not sold for the plan {plan_id}",
            {"package_id": package_id, "plan_id": plan_id},
        )
    return terms_of(snapshot, price)


def _is_sold(price: Mapping[str, Any]) -> bool:
    return bool(price.get("is_active") and price["plan"].get("is_active"))


def terms_of(snapshot: Mapping[str, Any], price: Mapping[str, Any]) -> Terms:
    """What a snapshot gives by one of its plans."""
    return Terms(
        snapshot["package_id"],
        price["plan_id"],
        price["_id"],
        snapshot["_id"],
        price.get("credits_micros", 0),
        price["plan"]["duration_days"] * DAY_MS,
        any(price["price"].values()),
        snapshot["type"] == PackageType.PACKAGE_TYPE_SUBSCRIPTION,
    )
