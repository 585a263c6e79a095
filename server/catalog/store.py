"""What the book of endpoints is read from, and what packages were sold with."""

import logging
from collections.abc import Collection, Mapping
from typing import Any, Final

from bson import ObjectId
from zaaz.catalog.v1.feature_endpoint_pb2 import HttpMethod

from server.catalog.endpoints import (
    EndpointBook,
    EndpointRow,
    EndpointVersion,
    FeatureNode,
    WordLimit,
)
from server.catalog.inclusions import Included
from server.catalog.marks import REVISIONS
from server.catalog.packages.resources import PACKAGE_FEATURES, PACKAGE_HISTORIES, PACKAGES
from server.catalog.resources import FEATURE_ENDPOINTS, FEATURES
from server.catalog.versions import HISTORIES
from server.mongo.database import Database
from server.mongo.errors import reachable
from server.resources.fields import millis

MAX_ROWS: Final = 20_000
"""Features, endpoints, and packages that are sold, that are read into a book."""

MAX_VERSIONS: Final = 100_000
"""History rows that are read into a book: the latest ones."""

_SOLD: Final = {"is_deleted": False, "is_active": True}
"""Of a package, and of a feature of a package."""

_log = logging.getLogger(__name__)

Document = dict[str, Any]
Revision = tuple[tuple[int, int], ...]


class CatalogStore:
    """The catalog's collections, as far as the book goes. Every method: DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def revision(self) -> Revision:
        """Another one after every change that was marked."""
        with reachable():
            rows = await self._database.collection(REVISIONS).find({}).to_list()
        return tuple(sorted((row["_id"], row["count"]) for row in rows))

    async def load_book(self) -> EndpointBook:
        """The book of what there is."""
        features = await self._find(
            FEATURES.collection, {}, "value", "parent_id", "is_active", "is_deleted", "max_word"
        )
        endpoints = await self._find(
            FEATURE_ENDPOINTS.collection,
            {"is_deleted": False},
            *("value", "feature_id", "is_active", "max_word"),
            *("captured_parts", "method", "endpoint"),
        )
        versions = await self._versions()
        return EndpointBook(
            {row["_id"]: _feature(row) for row in features},
            map(_endpoint, endpoints),
            [_version(row) for row in versions if not _only_unsets(row)],
            await self._packaged(),
        )

    async def included(self, history_ids: Collection[ObjectId]) -> dict[ObjectId, Included]:
        """The features of the snapshots that there are, by their ids."""
        query = {"_id": {"$in": list(history_ids)}}
        with reachable():
            histories = self._database.collection(PACKAGE_HISTORIES.collection)
            rows = await histories.find(query, {"features._id": 1}).to_list()
        return {row["_id"]: _features_of(row) for row in rows}

    async def _packaged(self) -> frozenset[ObjectId]:
        """The features that packages have which are sold."""
        packages = await self._find(PACKAGES.collection, _SOLD, "_id")
        sold = {**_SOLD, "package_id": {"$in": [package["_id"] for package in packages]}}
        steps: list[Document] = [
            {"$match": sold},
            {"$group": {"_id": "$feature_id"}},
            {"$limit": MAX_ROWS + 1},
        ]
        with reachable():
            joins = self._database.collection(PACKAGE_FEATURES.collection)
            rows = await (await joins.aggregate(steps)).to_list()
        return frozenset(row["_id"] for row in _bounded("features of packages", rows))

    async def _find(self, name: str, query: Document, *fields: str) -> list[Document]:
        with reachable():
            cursor = self._database.collection(name).find(query, dict.fromkeys(fields, 1))
            rows = await cursor.limit(MAX_ROWS + 1).to_list()
        return _bounded(name, rows)

    async def _versions(self) -> list[Document]:
        """In the order in which they were written."""
        fields = (
            *("feature_endpoint_id", "value", "credits_micros"),
            *("effective_time", "created_time", "is_deleted"),
        )
        with reachable():
            cursor = self._database.collection(HISTORIES).find({}, dict.fromkeys(fields, 1))
            latest = cursor.sort([("created_time", -1), ("_id", -1)]).limit(MAX_VERSIONS)
            rows = await latest.to_list()
        if len(rows) == MAX_VERSIONS:
            _log.error("only the last %d versions of endpoints are in their book", MAX_VERSIONS)
        return rows[::-1]


def _bounded(name: str, rows: list[Document]) -> list[Document]:
    if len(rows) > MAX_ROWS:
        _log.error("only %d %s are in the book of endpoints", MAX_ROWS, name)
    return rows[:MAX_ROWS]


def _features_of(row: Mapping[str, Any]) -> Included:
    return frozenset(feature["_id"] for feature in row.get("features", ()))


def _feature(row: Mapping[str, Any]) -> FeatureNode:
    is_active = row.get("is_active", False) and not row["is_deleted"]
    return FeatureNode(row["value"], row.get("parent_id"), is_active, _limit(row))


def _endpoint(row: Mapping[str, Any]) -> EndpointRow:
    method = row.get("method", 0)
    return EndpointRow(
        row["_id"],
        row["value"],
        row["feature_id"],
        row.get("is_active", False),
        _limit(row),
        frozenset(row.get("captured_parts", ())),
        HttpMethod.Name(method).removeprefix("HTTP_METHOD_") if method else "",
        row.get("endpoint", ""),
    )


def _only_unsets(row: Mapping[str, Any]) -> bool:
    """Whether it says again, of one change that was set ahead, that a deletion ended it.

    A book ends all of them at the deletion itself; what comes after a Restore is not ended.
    """
    return bool(row["is_deleted"]) and row["effective_time"] > row["created_time"]


def _version(row: Mapping[str, Any]) -> EndpointVersion:
    return EndpointVersion(
        row["_id"],
        row["feature_endpoint_id"],
        row["value"],
        millis(row["effective_time"]),
        row.get("credits_micros"),
        row.get("is_deleted", False),
    )


def _limit(row: Mapping[str, Any]) -> WordLimit | None:
    limit = row.get("max_word")
    return None if limit is None else WordLimit(limit.get("free", 0), limit.get("paid", 0))
