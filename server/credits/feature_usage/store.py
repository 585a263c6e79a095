"""The collection `feature_usage_logs`.

{_id, client_id, user_id, email, usage_key, feature_endpoint_id, feature_endpoint, endpoint,
 method, code, status, type, params?, query?, payload?, response?, truncated_parts, is_deleted,
 occurred_time, created_time, expires_time}; the four parts are JSON text.
"""

from collections.abc import Sequence
from typing import Any

from bson.datetime_ms import DatetimeMS
from pymongo.errors import BulkWriteError

from server.credits.feature_usage.model import RETENTION_MS, FeatureUsage
from server.credits.feature_usage.resources import FEATURE_USAGE_LOGS
from server.kernel.tasks import map_in_slices
from server.mongo.database import Database
from server.mongo.errors import DUPLICATE_KEY, DatabaseUnavailable, reachable

SLICE_ROWS = 200
"""Rows whose documents are made in one go."""


class FeatureUsageStore:
    """Writes rows. They are never changed; reading is the resource engine's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, rows: Sequence[FeatureUsage], now_ms: int) -> None:
        """Returns once all of them are durable (majority, journaled); those known stay as they are.

        DatabaseUnavailable: some may be there, and inserting them again does no harm.
        """
        documents = await map_in_slices(lambda row: _document(row, now_ms), rows, SLICE_ROWS)
        logs = self._database.collection(FEATURE_USAGE_LOGS.collection)
        with reachable():
            try:
                await logs.insert_many(documents, ordered=False)
            except BulkWriteError as error:
                _require_duplicates(error)


def _require_duplicates(error: BulkWriteError) -> None:
    """Pass over rows that were there before; raise everything else."""
    details = error.details or {}
    if details.get("writeConcernErrors"):
        raise DatabaseUnavailable(str(error)) from error
    if any(failure["code"] != DUPLICATE_KEY for failure in details["writeErrors"]):
        raise error


def _document(row: FeatureUsage, now_ms: int) -> dict[str, Any]:
    return {
        "_id": row.id,
        "client_id": row.client_id,
        "user_id": row.user_id,
        "email": row.email,
        "usage_key": row.usage_key,
        "feature_endpoint_id": row.feature_endpoint_id,
        "feature_endpoint": row.feature_endpoint,
        "endpoint": row.endpoint,
        "method": row.method,
        "code": row.code,
        "status": row.status,
        "type": row.type,
        **row.parts,
        "truncated_parts": list(row.truncated_parts),
        "is_deleted": False,
        "occurred_time": DatetimeMS(row.occurred_ms),
        "created_time": DatetimeMS(now_ms),
        "expires_time": DatetimeMS(now_ms + RETENTION_MS),
    }
