"""A database of the house: its collections, its indexes, its transactions."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pymongo
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure, PyMongoError

from server.mongo.errors import IndexConflict, translate
from server.mongo.schema import Collection, Index
from server.mongo.transaction import Tx, run_transaction

PING_TIMEOUT_SECONDS = 2
PREPARE_TIMEOUT_SECONDS = 600
_NAMESPACE_EXISTS = 48
_COMPARED = ("key", "unique", "partialFilterExpression", "expireAfterSeconds")


class Database:
    """One MongoDB database, by name, on the process's client."""

    def __init__(self, client: AsyncMongoClient[dict[str, Any]], name: str) -> None:
        self._database = client[name]

    @property
    def name(self) -> str:
        """The database's name."""
        return self._database.name

    async def prepare(self, collections: Sequence[Collection]) -> None:
        """Make all collections and indexes that do not exist yet; idempotent.

        Runs before serving: a transaction cannot make an index, and one that
        makes its collection takes a lock that conflicts with its neighbours.
        Raises IndexConflict for an index that exists with other options,
        DatabaseUnavailable when the database cannot be reached.
        """
        try:
            with pymongo.timeout(PREPARE_TIMEOUT_SECONDS):
                existing = set(await self._database.list_collection_names())
                for collection in collections:
                    await self._prepare(collection, there=collection.name in existing)
        except PyMongoError as error:
            raise translate(error) from error

    async def ping(self) -> None:
        """Return if a primary answers within 2 s; DatabaseUnavailable otherwise."""
        try:
            with pymongo.timeout(PING_TIMEOUT_SECONDS):
                await self._database.command("ping")
        except PyMongoError as error:
            raise translate(error) from error

    def collection(self, name: str) -> AsyncCollection[dict[str, Any]]:
        """For reads, and for writes of single documents outside transactions."""
        return self._database[name]

    def transaction(self) -> AbstractAsyncContextManager[Tx]:
        """A block that commits at its end (majority, journaled) and aborts on any exception.

        Raises TransactionLost or DatabaseUnavailable. Retrying is the caller's.
        """
        return run_transaction(self._database)

    async def _prepare(self, collection: Collection, *, there: bool) -> None:
        if there:
            await self._refuse_conflicts(collection)
        else:
            await self._create(collection.name)
        if collection.indexes:
            definitions = [index.definition() for index in collection.indexes]
            await self._database.command({"createIndexes": collection.name, "indexes": definitions})

    async def _create(self, name: str) -> None:
        try:
            await self._database.command({"create": name})
        except OperationFailure as error:
            # Another process was first: that is what we wanted.
            if error.code != _NAMESPACE_EXISTS:
                raise

    async def _refuse_conflicts(self, collection: Collection) -> None:
        cursor = await self._database[collection.name].list_indexes()
        existing = {found["name"]: found for found in await cursor.to_list()}
        for index in collection.indexes:
            found = existing.get(index.name)
            if found is not None:
                _compare(collection.name, index, found)


def _compare(collection: str, index: Index, found: Mapping[str, Any]) -> None:
    wanted, present = _options(index.definition()), _options(found)
    if wanted != present:
        raise IndexConflict(
            f"index {index.name} of collection {collection} exists as {present}, but is declared"
            f" as {wanted}: drop it with db.{collection}.dropIndex({index.name!r}) and start again"
        )


def _options(definition: Mapping[str, Any]) -> dict[str, Any]:
    options = {name: definition[name] for name in _COMPARED if definition.get(name) is not None}
    options["key"] = list(definition["key"].items())
    return options
