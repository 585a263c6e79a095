"""What popups are chosen from, and what users have dismissed.

A dismissal is {_id: "<popup>:<user>", popup_id, user_id, hidden_until_time}. That of a popup that
was purged stays and hides nothing: ids are never used again.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from bson import ObjectId
from pymongo import ReturnDocument
from zaaz.catalog.v1.feature_popup_pb2 import POPUP_CATEGORY_MULTI_TIME

from server.catalog.endpoints import MAX_DEPTH
from server.catalog.packages.resources import FEATURE_POPUPS
from server.catalog.popups.model import Feature, Popup
from server.catalog.resources import FEATURES
from server.mongo.database import Database
from server.mongo.errors import reachable
from server.mongo.schema import Collection, Index
from server.resources.fields import date, millis

MAX_CONSIDERED: Final = 1_000
"""Active popups that one answer is chosen from: those of the highest priority."""

DISMISSALS: Final = "feature_popup_dismissals"
COLLECTIONS: Final = (Collection(DISMISSALS, (Index((("user_id", 1), ("popup_id", 1))),)),)

Document = dict[str, Any]


class PopupStore:
    """Every method: DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def feature_of(self, value: str) -> ObjectId | None:
        """The live feature of this value."""
        query = {"is_deleted": False, "value": value}
        rows = await self._find(FEATURES.collection, query, ["_id"])
        return rows[0]["_id"] if rows else None

    async def active(self, feature_id: ObjectId | None) -> list[Popup]:
        """The live, active popups, of one feature if asked: the first to be shown first."""
        query: Document = {"is_deleted": False, "is_active": True}
        if feature_id is not None:
            query["feature_id"] = feature_id
        order = {"priority": -1, "created_time": 1, "_id": 1}
        rows = await self._find(FEATURE_POPUPS.collection, query, ["feature_id", "category"], order)
        return [
            Popup(row["_id"], row["feature_id"], row["category"] == POPUP_CATEGORY_MULTI_TIME)
            for row in rows
        ]

    async def with_ancestors(self, ids: Iterable[ObjectId]) -> dict[ObjectId, Feature]:
        """These features and all above them that are live."""
        features: dict[ObjectId, Feature] = {}
        wanted = set(ids)
        for _ in range(MAX_DEPTH):
            if not wanted:
                break
            query = {"_id": {"$in": list(wanted)}, "is_deleted": False}
            for row in await self._find(FEATURES.collection, query, ["parent_id", "is_active"]):
                active = row.get("is_active", False)
                features[row["_id"]] = Feature(row.get("parent_id"), active)
            above = (features[one].parent_id for one in wanted if one in features)
            wanted = {one for one in above if one is not None} - features.keys()
        return features

    async def dismissed(self, user_id: ObjectId, ids: Sequence[ObjectId]) -> dict[ObjectId, int]:
        """Until when the user has dismissed which of these popups."""
        query = {"user_id": user_id, "popup_id": {"$in": list(ids)}}
        rows = await self._find(DISMISSALS, query, ["popup_id", "hidden_until_time"])
        return {row["popup_id"]: millis(row["hidden_until_time"]) for row in rows}

    async def dismiss(self, user_id: ObjectId, popup_id: ObjectId, until_ms: int) -> int:
        """Hide it until then, or until later if it is hidden until later; gives that time."""
        change = {
            "$max": {"hidden_until_time": date(until_ms)},
            "$setOnInsert": {"popup_id": popup_id, "user_id": user_id},
        }
        with reachable():
            row = await self._database.collection(DISMISSALS).find_one_and_update(
                {"_id": f"{popup_id}:{user_id}"},
                change,
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        assert row is not None, "an upsert makes what is not there"
        return millis(row["hidden_until_time"])

    async def rows(self, ids: Sequence[ObjectId]) -> list[Document]:
        """These popups in their order; those that are gone by now are left out."""
        with reachable():
            cursor = self._database.collection(FEATURE_POPUPS.collection).find(
                {"_id": {"$in": list(ids)}}, limit=len(ids)
            )
            found = {row["_id"]: row for row in await cursor.to_list()}
        return [found[one] for one in ids if one in found]

    async def _find(
        self, name: str, query: Document, fields: Sequence[str], sort: Document | None = None
    ) -> list[Document]:
        with reachable():
            cursor = self._database.collection(name).find(
                query, dict.fromkeys(fields, 1), sort=sort, limit=MAX_CONSIDERED
            )
            return await cursor.to_list()
