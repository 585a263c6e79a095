"""The ledger's collections. Owns every write to a wallet."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from bson import ObjectId
from pymongo import ReturnDocument

from server.kernel.clock import DAY_MS
from server.kernel.tasks import map_in_slices
from server.ledger.alerts import Alert
from server.ledger.dates import date
from server.ledger.documents import (
    Document,
    WalletUpdate,
    entry_document,
    entry_from,
    error_document,
    wallet_document,
    wallet_from,
    wallet_update,
    writer_from,
)
from server.ledger.draft import (
    Draft,
    HoldRow,
    Known,
    PackageNote,
    RejectedUsage,
    RequestRow,
)
from server.ledger.hold_documents import (
    hold_change_document,
    hold_change_from,
    hold_row_update,
)
from server.ledger.model import Entry, Profile, Wallet, Writer
from server.ledger.package_documents import package_document
from server.ledger.riders import RowKey
from server.mongo.database import Database
from server.mongo.errors import TransactionLost, reachable
from server.mongo.schema import Collection, Index
from server.mongo.transaction import Tx

REJECTED_DAYS = 30
"""For how long an event that could not be settled is kept."""

SLICE_ENTRIES = 200
"""Entries whose documents are made in one go; then the loop may look to other work."""

READ_VERSIONS_FROM = 64
"""With so many wallets in a batch, one more read costs less than the filters that it spares."""

WALLETS = "user_wallets"
ENTRIES = "credits_transactions"
REQUESTS = "ledger_requests"
WRITERS = "usage_writers"
REJECTED = "rejected_usages"
HOLDS = "credits_holds"
PACKAGES = "package_transactions"

COLLECTIONS = (
    Collection(
        WALLETS,
        (
            Index((("user_id", 1),), unique=True),
            Index((("email", 1), ("_id", 1))),
            # Idle wallets whose grants are due.
            Index((("grants.expires_time", 1),)),
            # And those with holds that are.
            Index((("holds.expires_time", 1),)),
            # And those with packages.
            Index(
                (("subscription.expires_time", 1),),
                partial={"subscription.expires_time": {"$exists": True}},
            ),
            # And who keeps a package or a plan from being purged.
            Index((("package_id", 1),), partial={"package_id": {"$type": "objectId"}}),
            Index((("plan_id", 1),), partial={"plan_id": {"$type": "objectId"}}),
        ),
    ),
    Collection(
        HOLDS,
        (
            Index((("user_id", 1), ("created_time", -1), ("_id", -1))),
            Index((("state", 1), ("created_time", -1), ("_id", -1))),
            Index((("created_time", -1), ("_id", -1))),
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

WALLET_ALERTS = "wallet.alerts"
"""The outbox topic: one row for all alerts of a transaction, if it has any."""


class OutboxDocument(NamedTuple):
    """A row for the outbox's collection."""

    collection: str
    document: Mapping[str, Any]


class RowWrites(NamedTuple):
    """What riders change, by collection: new rows, and guarded updates."""

    new: dict[str, list[Document]]
    changed: dict[str, list[Document]]


class Writes(NamedTuple):
    """A draft as documents, ready to be sent."""

    new_wallets: list[Document]
    wallets: list[WalletUpdate]
    entries: list[Document]
    requests: list[Document]
    writers: list[Document]
    rejected: list[Document]
    settled_rejections: list[ObjectId]
    holds: list[Document]
    packages: list[Document]
    rows: RowWrites
    announcements: list[OutboxDocument]


class Announcer(Protocol):
    """The outbox, as far as the ledger knows it."""

    def document(self, topic: str, payload: Document) -> OutboxDocument | None:
        """The row to insert for a topic and its payload; None where nobody listens."""
        ...

    def committed(self, rows: Sequence[OutboxDocument]) -> None:
        """These rows are there to be dispatched."""
        ...


class LedgerStore:
    """Reads what a batch starts from, and writes a batch in one transaction."""

    def __init__(self, database: Database, announcer: Announcer) -> None:
        self._database = database
        self._announcer = announcer

    async def wallets(self, user_ids: Iterable[str]) -> dict[str, Wallet]:
        """The wallets of these users, by user; those without one are left out."""
        rows = await self._find(WALLETS, "user_id", [ObjectId(user_id) for user_id in user_ids])
        return {str(row["user_id"]): wallet_from(row) for row in rows}

    async def versions(self, user_ids: Iterable[str]) -> dict[str, int]:
        """The versions of these users' wallets as they are stored, by user."""
        wanted = {"$in": [ObjectId(user_id) for user_id in user_ids]}
        shown = {"_id": 0, "user_id": 1, "version": 1}
        with reachable():
            found = self._database.collection(WALLETS).find({"user_id": wanted}, shown)
            return {str(row["user_id"]): row["version"] for row in await found.to_list()}

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

    async def holds(self, ids: Iterable[ObjectId]) -> dict[ObjectId, HoldRow]:
        """The holds under these ids with what became of them, by id."""
        rows = await self._find(HOLDS, "_id", ids)
        return {row["_id"]: hold_row_from(row) for row in rows}

    async def rows(self, keys: Iterable[RowKey]) -> dict[RowKey, Document | None]:
        """Rows of other domains as they are stored; None for those that there are not."""
        rows: dict[RowKey, Document | None] = dict.fromkeys(keys)
        for collection in {key.collection for key in rows}:
            wanted = [key.id for key in rows if key.collection == collection]
            for row in await self._find(collection, "_id", wanted):
                rows[RowKey(collection, row["_id"])] = row
        return rows

    async def _find(self, collection: str, field: str, values: Iterable[object]) -> list[Document]:
        wanted = list(values)
        if not wanted:
            return []
        with reachable():
            found = self._database.collection(collection).find({field: {"$in": wanted}})
            return await found.to_list()

    async def prepare(self, draft: Draft) -> Writes:
        """Everything that the draft comes to, as documents.

        Apart from `write` because it is work for this process alone: it is done
        while mongod is still busy with the batch before, in slices.
        """
        before = draft.before
        new = [wallet for user_id, wallet in draft.after.items() if user_id not in before]
        changed = [
            (before[user_id], wallet)
            for user_id, wallet in draft.after.items()
            if user_id in before
        ]
        return Writes(
            new_wallets=[wallet_document(wallet) for wallet in new],
            wallets=await map_in_slices(lambda p: wallet_update(*p), changed, SLICE_ENTRIES),
            entries=await map_in_slices(entry_document, draft.entries, SLICE_ENTRIES),
            requests=[_request_document(row, draft.now_ms) for row in draft.requests.values()],
            writers=[
                _writer_update(draft.writers_before[key], writer)
                for key, writer in draft.writers.items()
            ],
            rejected=[_rejected_update(row, draft.now_ms) for row in draft.rejected.values()],
            settled_rejections=draft.settled_rejections,
            holds=[hold_row_update(*row) for row in draft.holds.values()],
            packages=_package_documents(draft),
            rows=_row_writes(draft),
            announcements=await self._announcements(draft),
        )

    async def write(self, writes: Writes) -> None:
        """One transaction. TransactionLost or DatabaseUnavailable: nothing of it is promised."""
        async with self._database.transaction() as tx:
            # The longest first: the next batch is planned meanwhile. It also finds duplicates.
            if writes.entries:
                await tx.insert(ENTRIES, writes.entries)
            if writes.requests:
                await tx.insert(REQUESTS, writes.requests)
            if writes.new_wallets:
                await tx.insert(WALLETS, writes.new_wallets)
            await _update_wallets(tx, writes.wallets)
            await _update_guarded(tx, WRITERS, writes.writers)
            if writes.holds:
                await tx.update(HOLDS, writes.holds)
            await _write_packages(tx, writes)
            if writes.rejected:
                await tx.update(REJECTED, writes.rejected)
            if writes.settled_rejections:
                await tx.delete(REJECTED, [{"_id": {"$in": writes.settled_rejections}}])
            for collection, document in writes.announcements:
                await tx.insert(collection, [document])
        if writes.announcements:
            self._announcer.committed(writes.announcements)

    async def _announcements(self, draft: Draft) -> list[OutboxDocument]:
        if not draft.after:
            return []
        wallets = await map_in_slices(_announced, list(draft.after.values()), SLICE_ENTRIES)
        rows = [self._announcer.document(WALLET_CHANGED, {"wallets": wallets})]
        alerts = draft.alerts()
        if alerts:
            payload = {"alerts": [alert_document(alert) for alert in alerts]}
            rows.append(self._announcer.document(WALLET_ALERTS, payload))
        return [row for row in rows if row is not None]


def _package_documents(draft: Draft) -> list[Document]:
    notes = [PackageNote.of(entry, entry.period) for entry in draft.entries if entry.period]
    return [package_document(note) for note in (*notes, *draft.package_notes)]


def _row_writes(draft: Draft) -> RowWrites:
    writes = RowWrites({}, {})
    for key, row in draft.rows.items():
        before = draft.rows_before.get(key)
        if before is None:
            writes.new.setdefault(key.collection, []).append(row)
        else:
            writes.changed.setdefault(key.collection, []).append(_row_update(before, row))
    return writes


def _row_update(before: Document, after: Document) -> Document:
    """Under the version and guard that were read: what any other change counts up."""
    changed = {name: value for name, value in after.items() if before.get(name) != value}
    guarded = {name: before.get(name) for name in ("_id", "version", "guard")}
    return {"q": guarded, "u": {"$set": changed, "$inc": {"guard": 1}}}


def alert_document(alert: Alert) -> Document:
    """An alert, as its topic carries it."""
    return alert._asdict()


def _announced(wallet: Wallet) -> Document:
    return {
        "user_id": wallet.profile.user_id,
        "sequence": wallet.sequence,
        "credits_micros": wallet.credits_micros,
        "held_micros": wallet.held_micros,
    }


async def _write_packages(tx: Tx, writes: Writes) -> None:
    if writes.packages:
        await tx.insert(PACKAGES, writes.packages)
    for collection, documents in writes.rows.new.items():
        await tx.insert(collection, documents)
    for collection, updates in writes.rows.changed.items():
        await _update_guarded(tx, collection, updates)


async def _update_wallets(tx: Tx, updates: list[WalletUpdate]) -> None:
    """Each under the version that it starts from.

    A filter of more than the _id has to be planned, for each wallet anew: 110 us of mongod
    where 40 do. So the versions of many wallets are read first; a wallet that is changed by
    another transaction after that makes this one lose.
    """
    if len(updates) < READ_VERSIONS_FROM:
        guarded = [
            {"q": {"user_id": update.user_id, "version": update.version}, "u": update.change}
            for update in updates
        ]
        await _update_guarded(tx, WALLETS, guarded)
        return
    expected = {update.id: update.version for update in updates}
    found = await tx.find(WALLETS, {"_id": {"$in": list(expected)}}, {"version": 1})
    if {row["_id"]: row["version"] for row in found} != expected:
        raise _changed(WALLETS)
    by_id = [{"q": {"_id": update.id}, "u": update.change} for update in updates]
    await _update_guarded(tx, WALLETS, by_id)


async def _update_guarded(tx: Tx, collection: str, updates: list[Document]) -> None:
    """Each update names the state that it starts from: one that matches nothing came too late."""
    if updates and await tx.update(collection, updates) != len(updates):
        raise _changed(collection)


def _changed(collection: str) -> TransactionLost:
    return TransactionLost("conflict", f"a row of {collection} has changed since it was read")


def _writer_update(before: Writer, after: Writer) -> Document:
    return {
        "q": {"_id": before.key, "epoch": after.epoch, "next_offset": before.next_offset},
        "u": {"$set": {"next_offset": after.next_offset}},
    }


def _rejected_update(rejected: RejectedUsage, now_ms: int) -> Document:
    return {
        "q": {"_id": rejected.id},
        "u": {
            "$set": {"error": error_document(rejected.error)},
            "$setOnInsert": {
                "client_id": rejected.client_id,
                "user_id": rejected.user_id,
                "event": rejected.payload,
                "created_time": date(now_ms),
                "expires_time": date(now_ms + REJECTED_DAYS * DAY_MS),
            },
        },
        "upsert": True,
    }


def _request_document(row: RequestRow, now_ms: int) -> Document:
    document: Document = {
        "_id": row.key,
        "fingerprint": row.fingerprint,
        "created_time": date(now_ms),
    }
    if row.entry is not None:
        document["entry_id"] = row.entry.id
    if row.wallet is not None:
        document["wallet"] = wallet_document(row.wallet)
    if row.hold is not None:
        document["hold"] = hold_change_document(row.hold)
    return document


def hold_row_from(row: Mapping[str, Any]) -> HoldRow:
    """A hold's row."""
    profile = Profile(row["user_wallet_id"], row["user_id"], "", 0)
    return HoldRow(profile, hold_change_from(row))


def _request_from(row: Mapping[str, Any], entries: Mapping[bytes, Entry]) -> RequestRow:
    entry_id, wallet, hold = row.get("entry_id"), row.get("wallet"), row.get("hold")
    return RequestRow(
        row["_id"],
        bytes(row["fingerprint"]),
        None if entry_id is None else entries[entry_id.binary],
        None if wallet is None else wallet_from(wallet),
        None if hold is None else hold_change_from(hold),
    )
