"""A database of the house: its collections, its indexes, its transactions."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pymongo
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection

from server.mongo.errors import reachable
from server.mongo.indexes import prepare_collection
from server.mongo.schema import Collection
from server.mongo.transaction import Tx, run_transaction

PING_TIMEOUT_SECONDS = 2.0
PREPARE_TIMEOUT_SECONDS = 600.0
"""An index on many rows takes its time, and serving must wait for it."""


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
        Raises IndexConflict for an index that exists with other options, or a
        unique one that the rows break; DatabaseUnavailable.
        """
        with reachable(), pymongo.timeout(PREPARE_TIMEOUT_SECONDS):
            existing = set(await self._database.list_collection_names())
            for collection in collections:
                await prepare_collection(
                    self._database, collection, exists=collection.name in existing
                )

    async def ping(self) -> None:
        """Return if a primary answers within 2 s; DatabaseUnavailable otherwise."""
        with reachable(), pymongo.timeout(PING_TIMEOUT_SECONDS):
            await self._database.command("ping")

    def collection(self, name: str) -> AsyncCollection[dict[str, Any]]:
        """For reads, and for writes of single documents outside transactions.

        It raises the driver's errors; `errors.reachable` makes DatabaseUnavailable of them.
        """
        return self._database[name]

    def transaction(self) -> AbstractAsyncContextManager[Tx]:
        """A block that commits at its end (majority, journaled) and aborts on any exception.

        Raises TransactionLost or DatabaseUnavailable. Retrying is the caller's.
        """
        return run_transaction(self._database)
