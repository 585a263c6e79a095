"""Writes that happen together or not at all.

`Tx` is the only way to write in a transaction: there is no session and no
collection beside it that a write could slip past. Commands are raw, because a
whole batch is then encoded by one call into C.

A write error inside a transaction has already aborted it on the server, so it
is never caught to go on: it leaves the block as TransactionLost, and whether
to run the block again is the caller's decision (with bounds of its own).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pymongo
from pymongo import ReadPreference, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DocumentTooLarge, PyMongoError
from pymongo.read_concern import ReadConcern

from server.mongo.errors import TransactionLost, commit_unknown, lossy, raise_write_errors

MAX_ITEMS_PER_COMMAND = 10_000
"""MongoDB takes 100,000; its 16 MB per command are met by halving."""

COMMIT_TRIES = 4
COMMIT_TIMEOUT_SECONDS = 6.0
COMMIT_RETRY_SECONDS = 0.1
ABORT_TIMEOUT_SECONDS = 1.0

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
        self._begun = False

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
        projection: Mapping[str, Any] | None = None,
        *,
        limit: int = 0,
    ) -> list[dict[str, Any]]:
        """The documents that match, as of the transaction's snapshot; `limit` 0 means all."""
        cursor = self._database[collection].find(
            filter,
            projection,
            session=self._open(),
            limit=limit,
            # All are read anyway: the first answer need not end at 101.
            batch_size=MAX_ITEMS_PER_COMMAND,
        )
        with lossy():
            found = await cursor.to_list()
        self._begun = True
        return found

    def close(self) -> None:
        """Ends use. Only `run_transaction` calls it."""
        self._session = None

    async def _write(
        self, verb: str, collection: str, field: str, items: Sequence[Mapping[str, Any]]
    ) -> int:
        starts = range(0, len(items), MAX_ITEMS_PER_COMMAND)
        waiting = deque(items[start : start + MAX_ITEMS_PER_COMMAND] for start in starts)
        count = 0
        while waiting:
            chunk = waiting.popleft()
            try:
                count += await self._command({verb: collection, field: chunk, "ordered": True})
            except DocumentTooLarge:
                # The driver's own check, before anything is sent: no write error.
                if len(chunk) == 1:
                    raise
                await self._forget_unsent()
                middle = len(chunk) // 2
                waiting.extendleft((chunk[middle:], chunk[:middle]))
        return count

    async def _command(self, command: dict[str, Any]) -> int:
        session = self._open()
        with lossy():
            answer = await self._database.command(command, session=session)
            raise_write_errors(answer)
        self._begun = True
        return int(answer["n"])

    async def _forget_unsent(self) -> None:
        """The driver believes that the unsent command began the transaction; begin anew."""
        if not self._begun:
            session = self._open()
            await _abort(session)
            await _begin(session)

    def _open(self) -> AsyncClientSession:
        if self._session is None:
            raise RuntimeError("this transaction is over: its block has been left")
        return self._session


@asynccontextmanager
async def run_transaction(database: AsyncDatabase[dict[str, Any]]) -> AsyncIterator[Tx]:
    """A transaction that commits (majority, journaled) at the block's end, aborts on exception.

    Cancelled during the commit, its outcome is not known to anyone.
    """
    async with database.client.start_session() as session:
        await _begin(session)
        tx = Tx(database, session)
        try:
            yield tx
        except BaseException:
            tx.close()
            await _abort(session)
            raise
        tx.close()
        await _commit(session)


async def _begin(session: AsyncClientSession) -> None:
    await session.start_transaction(
        read_concern=_SNAPSHOT, write_concern=_MAJORITY, read_preference=ReadPreference.PRIMARY
    )


async def _abort(session: AsyncClientSession) -> None:
    """Tell the server, briefly: one that cannot be told aborts by itself within a minute."""
    with pymongo.timeout(ABORT_TIMEOUT_SECONDS):
        await session.abort_transaction()


async def _commit(session: AsyncClientSession) -> None:
    """Ask until the outcome is known, up to COMMIT_TRIES times.

    Asking again never commits twice, and a server that was restarted answers
    truly: committed, or no such transaction (which is a conflict: run it again).
    """
    for attempt in range(1, COMMIT_TRIES + 1):
        unknown = await _try_commit(session)
        if unknown is None:
            return
        if attempt == COMMIT_TRIES:
            raise TransactionLost("unknown", str(unknown)) from unknown
        await asyncio.sleep(COMMIT_RETRY_SECONDS * attempt)


async def _try_commit(session: AsyncClientSession) -> PyMongoError | None:
    """Commit, or give back the error that leaves the outcome open."""
    with lossy():
        try:
            with pymongo.timeout(COMMIT_TIMEOUT_SECONDS):
                await session.commit_transaction()
        except PyMongoError as error:
            if commit_unknown(error):
                return error
            raise
    return None
