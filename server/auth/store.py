"""The collection `api_keys`.

{_id, client_id, name, scopes, secret_sha256, expires_time | null, revoked_time | null,
 created_time, creator_client_id, request_id, request_sha256}
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from pymongo import DESCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError, PyMongoError

from server.auth.model import ApiKey, NewApiKey
from server.kernel.errors import DomainError, Reason
from server.mongo.database import Database
from server.mongo.errors import is_unavailable
from server.mongo.schema import Collection, Index

_API_KEYS = "api_keys"

COLLECTIONS: tuple[Collection, ...] = (
    Collection(
        _API_KEYS,
        (
            Index((("creator_client_id", 1), ("request_id", 1)), unique=True),
            Index((("client_id", 1), ("_id", -1))),
            # Equality with null: the keys that are alive, newest first.
            Index((("revoked_time", 1), ("_id", -1))),
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which keys to list. An empty `client_id` means every client's."""

    client_id: str = ""
    show_revoked: bool = False


@dataclass(frozen=True, slots=True)
class KeyState:
    """What can end a key, in milliseconds."""

    revoked_time: int | None
    expires_time: int | None


class RequestIdTakenError(Exception):
    """This creator has used this request_id before."""


class ApiKeyStore:
    """Reads and writes keys. Every method raises DEPENDENCY_UNAVAILABLE without a database."""

    def __init__(self, database: Database) -> None:
        self._keys = database.collection(_API_KEYS)

    async def insert(self, key: ApiKey, creator: str, wanted: NewApiKey) -> None:
        """Store a new key. Raises RequestIdTakenError."""
        row = {
            "_id": key.id,
            "client_id": key.client_id,
            "name": key.name,
            "scopes": list(key.scopes),
            "secret_sha256": key.secret_sha256,
            "expires_time": _date(key.expires_time),
            "revoked_time": None,
            "created_time": _date(key.created_time),
            "creator_client_id": creator,
            "request_id": wanted.request_id,
            "request_sha256": wanted.fingerprint(),
        }
        with _database_errors():
            try:
                await self._keys.insert_one(row)
            except DuplicateKeyError:
                raise RequestIdTakenError from None

    async def find_request(self, creator: str, request_id: str) -> tuple[ApiKey, bytes] | None:
        """The key that this request made, and the fingerprint of its payload."""
        with _database_errors():
            row = await self._keys.find_one(
                {"creator_client_id": creator, "request_id": request_id}
            )
        return (_key(row), row["request_sha256"]) if row else None

    async def find(self, key_id: ObjectId) -> ApiKey | None:
        """The key with this id."""
        with _database_errors():
            row = await self._keys.find_one({"_id": key_id})
        return _key(row) if row else None

    async def states(self, key_ids: Sequence[str]) -> dict[str, KeyState]:
        """What can end these keys, by id, in one query; ids that do not exist are left out."""
        wanted = {"_id": {"$in": [ObjectId(key_id) for key_id in key_ids]}}
        with _database_errors():
            cursor = self._keys.find(wanted, {"revoked_time": 1, "expires_time": 1})
            rows = await cursor.to_list()
        return {
            str(row["_id"]): KeyState(
                revoked_time=_optional_time(row["revoked_time"]),
                expires_time=_optional_time(row["expires_time"]),
            )
            for row in rows
        }

    async def page(self, which: KeyFilter, before: ObjectId | None, limit: int) -> list[ApiKey]:
        """Up to `limit` keys, newest first, from before `before` on."""
        query: dict[str, Any] = {}
        if which.client_id:
            query["client_id"] = which.client_id
        if not which.show_revoked:
            query["revoked_time"] = None
        if before is not None:
            query["_id"] = {"$lt": before}
        with _database_errors():
            cursor = self._keys.find(query).sort("_id", DESCENDING).limit(limit)
            return [_key(row) for row in await cursor.to_list()]

    async def revoke(self, key_id: ObjectId, now: int) -> ApiKey | None:
        """The key, revoked now or before; None if there is none."""
        with _database_errors():
            row = await self._keys.find_one_and_update(
                {"_id": key_id, "revoked_time": None},
                {"$set": {"revoked_time": DatetimeMS(now)}},
                return_document=ReturnDocument.AFTER,
            )
        return _key(row) if row else await self.find(key_id)


@contextmanager
def _database_errors() -> Iterator[None]:
    try:
        yield
    except PyMongoError as error:
        if not is_unavailable(error):
            raise
        raise DomainError(
            Reason.DEPENDENCY_UNAVAILABLE,
            "the database cannot be reached",
            {"dependency": "mongodb"},
        ) from error


def _key(row: Mapping[str, Any]) -> ApiKey:
    return ApiKey(
        id=row["_id"],
        client_id=row["client_id"],
        name=row["name"],
        scopes=tuple(row["scopes"]),
        expires_time=_optional_time(row["expires_time"]),
        revoked_time=_optional_time(row["revoked_time"]),
        created_time=_time(row["created_time"]),
        secret_sha256=row["secret_sha256"],
    )


def _date(time_ms: int | None) -> DatetimeMS | None:
    return None if time_ms is None else DatetimeMS(time_ms)


def _time(date: datetime) -> int:
    return int(DatetimeMS(date))


def _optional_time(date: datetime | None) -> int | None:
    return None if date is None else _time(date)
