"""The ledger's collections. Owns every write to a wallet."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo import ReturnDocument

from server.kernel.clock import DAY_MS
from server.ledger.documents import (
    Document,
    date,
    entry_document,
    entry_from,
    error_document,
    wallet_document,
    wallet_from,
    wallet_update,
    writer_from,
)
from server.ledger.draft import Draft, Known, RequestRow
from server.ledger.model import Entry, Wallet, Writer
from server.mongo.database import Database
from server.mongo.errors import TransactionLost, reachable
from server.mongo.schema import Collection, Index
from server.mongo.transaction import Tx

REJECTED_DAYS = 30
"""For how long an event that could not be settled is kept."""

WALLETS = "user_wallets"
ENTRIES = "credits_transactions"
REQUESTS = "ledger_requests"
WRITERS = "usage_writers"
REJECTED = "rejected_usages"

COLLECTIONS = (
    Collection(
        WALLETS,
        (
            Index((("user_id", 1),), unique=True),
            Index((("email", 1), ("_id", 1))),
            # Idle wallets whose grants are due.
            Index((("grants.expires_time", 1),)),
        ),
    ),
    Collection(
        ENTRIES,
        (
            Index((("user_id", 1), ("sequence", 1)), unique=True),
            Index((("created_time", 1), ("_id", 1))),
        ),
    ),
    Collection(REQUESTS),
    Collection(WRITERS),
    Collection(
        REJECTED,
        (
            Index((("client_id", 1), ("created_time", 1), ("_id", 1))),
            Index((("user_id", 1), ("created_time", 1), ("_id", 1))),
            Index((("created_time", 1), ("_id", 1))),
            Index((("expires_time", 1),), expire_after_seconds=0),
        ),
    ),
)

WALLET_CHANGED = "wallet.changed"
"""The outbox topic: one row a transaction, with every wallet that it changed."""


class OutboxDocument(NamedTuple):
    """A row for the outbox's collection."""

    collection: str
    document: Mapping[str, Any]


Announce = Callable[[str, Document], OutboxDocument | None]
"""Makes the outbox row for a topic and its payload; None where nobody listens."""


class LedgerStore:
    """Reads what a batch starts from, and writes a batch in one transaction."""

    def __init__(self, database: Database, announce: Announce) -> None:
        self._database = database
        self._announce = announce

    async def wallets(self, user_ids: Iterable[str]) -> dict[str, Wallet]:
        """The wallets of these users, by user; those without one are left out."""
        rows = await self._find(WALLETS, "user_id", [ObjectId(user_id) for user_id in user_ids])
        return {str(row["user_id"]): wallet_from(row) for row in rows}

    async def writers(self, keys: Iterable[str]) -> dict[str, Writer]:
        """The stream writers under these keys."""
        return {row["_id"]: writer_from(row) for row in await self._find(WRITERS, "_id", keys)}

    async def open_writer(self, key: str) -> Writer:
        """Takes the writer over: whoever held it before is fenced by the new epoch."""
        with reachable():
            row = await self._database.collection(WRITERS).find_one_and_update(
                {"_id": key},
                {"$inc": {"epoch": 1}, "$setOnInsert": {"next_offset": 0}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        return writer_from(row or {})

    async def known(self, request_keys: Iterable[str], entry_ids: Iterable[ObjectId]) -> Known:
        """What has been committed under any of these keys."""
        rows = await self._find(REQUESTS, "_id", request_keys)
        made = [row["entry_id"] for row in rows if "entry_id" in row]
        entries = await self.entries([*entry_ids, *made])
        return Known({row["_id"]: _request_from(row, entries) for row in rows}, entries)

    async def entries(self, ids: Iterable[ObjectId]) -> dict[bytes, Entry]:
        """The entries under these ids, by their id's bytes."""
        rows = await self._find(ENTRIES, "_id", ids)
        return {row["_id"].binary: entry_from(row) for row in rows}

    async def _find(self, collection: str, field: str, values: Iterable[object]) -> list[Document]:
        wanted = list(values)
        if not wanted:
            return []
        with reachable():
            found = self._database.collection(collection).find({field: {"$in": wanted}})
            return await found.to_list()

    async def write(self, draft: Draft) -> None:
        """Commits the draft. TransactionLost or DatabaseUnavailable: nothing of it is promised."""
        async with self._database.transaction() as tx:
            await self._write_wallets(tx, draft)
            if draft.entries:
                await tx.insert(ENTRIES, [entry_document(entry) for entry in draft.entries])
            if draft.requests:
                await tx.insert(
                    REQUESTS, [_request_document(r, draft) for r in draft.requests.values()]
                )
            await self._write_writers(tx, draft)
            await self._write_rejected(tx, draft)
            await self._write_outbox(tx, draft)

    async def _write_wallets(self, tx: Tx, draft: Draft) -> None:
        made = [w for user_id, w in draft.after.items() if user_id not in draft.before]
        changed = [
            wallet_update(draft.before[user_id], wallet)
            for user_id, wallet in draft.after.items()
            if user_id in draft.before
        ]
        if made:
            await tx.insert(WALLETS, [wallet_document(wallet) for wallet in made])
        if changed and await tx.update(WALLETS, changed) != len(changed):
            raise TransactionLost("conflict", "a wallet has changed since it was read")

    async def _write_writers(self, tx: Tx, draft: Draft) -> None:
        updates = [
            {
                "q": {
                    "_id": key,
                    "epoch": writer.epoch,
                    "next_offset": draft.writers_before[key].next_offset,
                },
                "u": {"$set": {"next_offset": writer.next_offset}},
            }
            for key, writer in draft.writers.items()
        ]
        if updates and await tx.update(WRITERS, updates) != len(updates):
            raise TransactionLost("conflict", "a stream writer has moved since it was read")

    async def _write_rejected(self, tx: Tx, draft: Draft) -> None:
        expires = date(draft.now_ms + REJECTED_DAYS * DAY_MS)
        updates = [
            {
                "q": {"_id": rejected.id},
                "u": {
                    "$set": {"error": error_document(rejected.error)},
                    "$setOnInsert": {
                        "client_id": rejected.client_id,
                        "user_id": rejected.user_id,
                        "event": rejected.payload,
                        "created_time": date(draft.now_ms),
                        "expires_time": expires,
                    },
                },
                "upsert": True,
            }
            for rejected in draft.rejected.values()
        ]
        if updates:
            await tx.update(REJECTED, updates)
        if draft.settled_rejections:
            await tx.delete(REJECTED, [{"_id": {"$in": draft.settled_rejections}}])

    async def _write_outbox(self, tx: Tx, draft: Draft) -> None:
        if not draft.after:
            return
        wallets = [
            {
                "user_id": user_id,
                "sequence": wallet.sequence,
                "credits_micros": wallet.credits_micros,
                "held_micros": wallet.held_micros,
            }
            for user_id, wallet in draft.after.items()
        ]
        row = self._announce(WALLET_CHANGED, {"wallets": wallets})
        if row is not None:
            await tx.insert(row.collection, [row.document])


def _request_document(row: RequestRow, draft: Draft) -> Document:
    document: Document = {
        "_id": row.key,
        "fingerprint": row.fingerprint,
        "created_time": date(draft.now_ms),
    }
    if row.entry is not None:
        document["entry_id"] = row.entry.id
    if row.wallet is not None:
        document["wallet"] = wallet_document(row.wallet)
    return document


def _request_from(row: Mapping[str, Any], entries: Mapping[bytes, Entry]) -> RequestRow:
    entry_id, wallet = row.get("entry_id"), row.get("wallet")
    return RequestRow(
        row["_id"],
        bytes(row["fingerprint"]),
        None if entry_id is None else entries[entry_id.binary],
        None if wallet is None else wallet_from(wallet),
    )
