"""Makes a declared collection so, and refuses to serve on indexes other than declared."""

import logging
from collections.abc import Mapping
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure

from server.mongo.errors import DUPLICATE_KEY, IndexConflict
from server.mongo.schema import Collection, Index

_NAMESPACE_EXISTS = 48
_OTHER_OPTIONS = (85, 86)
_PRIMARY_KEY = "_id_"
_NOT_OPTIONS = frozenset(("v", "name", "ns", "background"))

_log = logging.getLogger(__name__)


async def prepare_collection(
    database: AsyncDatabase[dict[str, Any]], collection: Collection, *, exists: bool
) -> None:
    """Make the collection and its indexes. Raises IndexConflict and the driver's errors."""
    if exists:
        await _compare_indexes(database, collection)
    else:
        await _create(database, collection.name)
    if collection.indexes:
        await _create_indexes(database, collection)


async def _create(database: AsyncDatabase[dict[str, Any]], name: str) -> None:
    try:
        await database.command({"create": name})
    except OperationFailure as error:
        # Another process was first: that is what we wanted.
        if error.code != _NAMESPACE_EXISTS:
            raise


async def _create_indexes(database: AsyncDatabase[dict[str, Any]], collection: Collection) -> None:
    definitions = [index.definition() for index in collection.indexes]
    try:
        await database.command({"createIndexes": collection.name, "indexes": definitions})
    except OperationFailure as error:
        if error.code == DUPLICATE_KEY:
            raise IndexConflict(
                f"collection {collection.name} has rows that break a unique index: {error}"
            ) from error
        if error.code in _OTHER_OPTIONS:
            raise IndexConflict(f"collection {collection.name}: {error}") from error
        raise


async def _compare_indexes(database: AsyncDatabase[dict[str, Any]], collection: Collection) -> None:
    cursor = await database[collection.name].list_indexes()
    existing = {found["name"]: found for found in await cursor.to_list()}
    for index in collection.indexes:
        found = existing.pop(index.name, None)
        if found is not None:
            _compare(collection.name, index, found)
    existing.pop(_PRIMARY_KEY, None)
    for name in existing:
        # It costs every write, and an old unique one may refuse good rows.
        _log.warning("index %s of collection %s is not declared", name, collection.name)


def _compare(collection: str, index: Index, found: Mapping[str, Any]) -> None:
    wanted, present = _options(index.definition()), _options(found)
    if wanted != present:
        raise IndexConflict(
            f"index {index.name} of collection {collection} exists as {present}, but is declared"
            f" as {wanted}: drop it with db.{collection}.dropIndex({index.name!r}) and start again"
        )


def _options(definition: Mapping[str, Any]) -> dict[str, Any]:
    options = {name: value for name, value in definition.items() if name not in _NOT_OPTIONS}
    # A list: the order of an index's fields is part of it.
    options["key"] = list(definition["key"].items())
    return options
