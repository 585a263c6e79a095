"""Writes that happen together or not at all.

`Tx` is the only way to write in a transaction: there is no session and no
collection beside it that a write could slip past. Commands are raw, because a
whole batch is then encoded by one call into C.

A write error inside a transaction has already aborted it on the server, so it
is never caught to go on: it leaves the block as TransactionLost, and whether
to run the block again is the caller's decision (with bounds of its own).
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pymongo import ReadPreference, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from server.mongo.errors import TransactionLost, commit_unknown, translate, write_failure

MAX_DOCUMENTS_PER_COMMAND = 10_000
COMMIT_TRIES = 4
COMMIT_RETRY_SECONDS = 0.1

_MAJORITY = WriteConcern(w="majority", j=True)
_SNAPSHOT = ReadConcern("snapshot")


class Tx:
    """An open transaction. Refuses use (RuntimeError) once its block is over.

    Every method raises TransactionLost or DatabaseUnavailable; let them pass.
    """

    def __init__(
        self, database: AsyncDatabase[dict[str, Any]], session: AsyncClientSession
    ) -> None:
        self._database = database
        self._session: AsyncClientSession | None = session

    async def insert(self, collection: str, documents: Sequence[Mapping[str, Any]]) -> None:
        """Insert all of `documents`, which bring their `_id`."""
        await self._write("insert", collection, "documents", documents)

    async def update(self, collection: str, updates: Sequence[Mapping[str, Any]]) -> int:
        """Run updates of the shape `{"q", "u", "upsert"?, "multi"?}`.

        Returns how many documents matched; an upsert counts.
        """
        return await self._write("update", collection, "updates", updates)

    async def delete(self, collection: str, filters: Sequence[Mapping[str, Any]]) -> int:
        """Delete every document that matches any of `filters`. Returns how many went."""
        deletes = [{"q": query, "limit": 0} for query in filters]
        return await self._write("delete", collection, "deletes", deletes)

    async def find(
        self,
        collection: str,
        filter: Mapping[str, Any],  # noqa: A002 - as every driver names it
        *,
        limit: int = 0,
    ) -> list[dict[str, Any]]:
        """The documents that match, as of the transaction's snapshot; `limit` 0 means all."""
        cursor = self._database[collection].find(filter, session=self._open(), limit=limit)
        try:
            return await cursor.to_list()
        except PyMongoError as error:
            raise translate(error) from error

    def close(self) -> None:
        """Ends use. Only `run_transaction` calls it."""
        self._session = None

    async def _write(
        self, verb: str, collection: str, field: str, items: Sequence[Mapping[str, Any]]
    ) -> int:
        count = 0
        for start in range(0, len(items), MAX_DOCUMENTS_PER_COMMAND):
            chunk = items[start : start + MAX_DOCUMENTS_PER_COMMAND]
            count += await self._command({verb: collection, field: chunk, "ordered": True})
        return count

    async def _command(self, command: dict[str, Any]) -> int:
        session = self._open()
        try:
            answer = await self._database.command(command, session=session)
        except PyMongoError as error:
            raise translate(error) from error
        failure = write_failure(answer)
        if failure is not None:
            raise failure
        return int(answer["n"])

    def _open(self) -> AsyncClientSession:
        if self._session is None:
            raise RuntimeError("this transaction is over: its block has been left")
        return self._session


@asynccontextmanager
async def run_transaction(database: AsyncDatabase[dict[str, Any]]) -> AsyncIterator[Tx]:
    """A transaction that commits (majority, journaled) at the block's end, aborts on exception."""
    async with database.client.start_session() as session:
        await session.start_transaction(
            read_concern=_SNAPSHOT, write_concern=_MAJORITY, read_preference=ReadPreference.PRIMARY
        )
        tx = Tx(database, session)
        try:
            yield tx
        except BaseException:
            tx.close()
            await session.abort_transaction()
            raise
        tx.close()
        await _commit(session)


async def _commit(session: AsyncClientSession) -> None:
    """Ask until the outcome is known, up to COMMIT_TRIES times: asking again commits once."""
    for attempt in range(1, COMMIT_TRIES + 1):
        try:
            await session.commit_transaction()
        except PyMongoError as error:
            if not commit_unknown(error):
                raise translate(error) from error
            if attempt == COMMIT_TRIES:
                raise TransactionLost("unknown", str(error)) from error
            await asyncio.sleep(COMMIT_RETRY_SECONDS * attempt)
        else:
            return
