"""Reads of what is committed, never of the committer's cache: another process may own it."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo import ASCENDING, DESCENDING

from server.kernel.clock import Clock
from server.ledger.dates import date, milliseconds
from server.ledger.documents import Document, entry_from, error_from, wallet_from
from server.ledger.draft import HoldRow, RejectedUsage
from server.ledger.expiry import expire
from server.ledger.model import Entry, Wallet
from server.ledger.refusals import hold_not_found, transaction_not_found, wallet_not_found
from server.ledger.store import ENTRIES, HOLDS, REJECTED, WALLETS, hold_row_from
from server.mongo.database import Database
from server.mongo.errors import reachable

Cursor = list[str | int]
"""Where a page ended; opaque to callers."""


class Page(NamedTuple):
    """Rows of a list, and where to go on (None: nowhere)."""

    rows: list[Any]
    cursor: Cursor | None


class KeptUsage(NamedTuple):
    """A rejected event with the times of its row, in milliseconds."""

    rejected: RejectedUsage
    created_ms: int
    expires_ms: int


class DueWallet(NamedTuple):
    """A wallet that a worker should look at."""

    id: ObjectId
    user_id: str


_DUE = ("grants", "holds", "subscription")
"""Parts of a wallet that end by time."""


class LedgerReader:
    """All methods may raise DEPENDENCY_UNAVAILABLE."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def wallet(self, user_id: str) -> Wallet:
        """The user's wallet with what is due expired. WALLET_NOT_FOUND."""
        return self.as_of_now(await self.stored_wallet(user_id))

    def as_of_now(self, wallet: Wallet) -> Wallet:
        """The wallet less what has expired since it was written, which has no entry yet."""
        due = expire(wallet, self._clock()).wallet
        return due._replace(
            sequence=wallet.sequence, chain=wallet.chain, updated_ms=wallet.updated_ms
        )

    async def stored_wallet(self, user_id: str) -> Wallet:
        """The wallet as it was last written. WALLET_NOT_FOUND."""
        rows = await self._rows(WALLETS, {"user_id": ObjectId(user_id)}, {"_id": ASCENDING}, 1)
        if not rows:
            raise wallet_not_found(user_id)
        return wallet_from(rows[0])

    async def wallets(self, email: str, after: Cursor | None, size: int) -> Page:
        """A page of wallets in the order of their making."""
        query: Document = {"email": email.lower()} if email else {}
        if after:
            query["_id"] = {"$gt": ObjectId(str(after[0]))}
        rows = await self._rows(WALLETS, query, {"_id": ASCENDING}, size + 1)
        wallets = [self.as_of_now(wallet_from(row)) for row in rows[:size]]
        return _page(rows, size, wallets, lambda row: [str(row["_id"])])

    async def due(self, now_ms: int, after: ObjectId | None, size: int) -> list[DueWallet]:
        """Wallets with grants, holds or packages whose time is over, in the order of their ids.

        Among them are those whose grants are over and held.
        """
        over = {"$lte": date(now_ms)}
        query: Document = {"$or": [{f"{due}.expires_time": over} for due in _DUE]}
        if after is not None:
            query["_id"] = {"$gt": after}
        rows = await self._rows(WALLETS, query, {"_id": ASCENDING}, size)
        return [DueWallet(row["_id"], str(row["user_id"])) for row in rows]

    async def expiring(
        self, now_ms: int, until_ms: int, after: ObjectId | None, size: int
    ) -> list[Wallet]:
        """Wallets with grants or packages that end in between, by their ids, as stored."""
        soon = {"$gt": date(now_ms), "$lte": date(until_ms)}
        of_grants = {"grants": {"$elemMatch": {"expires_time": soon}}}
        query: Document = {"$or": [of_grants, {"subscription.expires_time": soon}]}
        if after is not None:
            query["_id"] = {"$gt": after}
        rows = await self._rows(WALLETS, query, {"_id": ASCENDING}, size)
        return [wallet_from(row) for row in rows]

    async def entry(self, entry_id: ObjectId) -> Entry:
        """TRANSACTION_NOT_FOUND."""
        rows = await self._rows(ENTRIES, {"_id": entry_id}, {"_id": ASCENDING}, 1)
        if not rows:
            raise transaction_not_found(entry_id)
        return entry_from(rows[0])

    async def entries(
        self, user_id: str, after: Cursor | None, size: int, *, only_usage: bool = False
    ) -> Page:
        """A page of entries, newest first: of one user by sequence, of all by time."""
        query: Document = {"usage": {"$exists": True}} if only_usage else {}
        if user_id:
            query["user_id"] = ObjectId(user_id)
            if after:
                query["sequence"] = {"$lt": after[0]}
            rows = await self._rows(ENTRIES, query, {"sequence": DESCENDING}, size + 1)
            found = [entry_from(row) for row in rows[:size]]
            return _page(rows, size, found, lambda row: [row["sequence"]])
        if after:
            query["$or"] = _past(after, "$lt")
        order = {"created_time": DESCENDING, "_id": DESCENDING}
        rows = await self._rows(ENTRIES, query, order, size + 1)
        return _page(rows, size, [entry_from(row) for row in rows[:size]], _place)

    async def history(self, user_id: ObjectId, through_sequence: int) -> AsyncIterator[Entry]:
        """A wallet's entries from the first to `through_sequence`, streamed."""
        query = {"user_id": user_id, "sequence": {"$lte": through_sequence}}
        cursor = self._database.collection(ENTRIES).find(query).sort("sequence", ASCENDING)
        with reachable():
            async for row in cursor:
                yield entry_from(row)

    async def hold(self, hold_id: ObjectId) -> HoldRow:
        """A hold with what became of it, as it was last written. HOLD_NOT_FOUND."""
        rows = await self._rows(HOLDS, {"_id": hold_id}, {"_id": ASCENDING}, 1)
        if not rows:
            raise hold_not_found(hold_id)
        return hold_row_from(rows[0])

    async def holds_by_id(self, ids: Collection[ObjectId]) -> list[HoldRow]:
        """Those of the holds that there are."""
        if not ids:
            return []
        rows = await self._rows(HOLDS, {"_id": {"$in": list(ids)}}, {"_id": ASCENDING}, len(ids))
        return [hold_row_from(row) for row in rows]

    async def holds(self, user_id: str, state: int, after: Cursor | None, size: int) -> Page:
        """A page of holds, newest first, of one user ("": of all) and state (0: any)."""
        query: Document = {}
        if user_id:
            query["user_id"] = ObjectId(user_id)
        if state:
            query["state"] = state
        if after:
            query["$or"] = _past(after, "$lt")
        order = {"created_time": DESCENDING, "_id": DESCENDING}
        rows = await self._rows(HOLDS, query, order, size + 1)
        return _page(rows, size, [hold_row_from(row) for row in rows[:size]], _place)

    async def rejected(
        self, client_id: str | None, user_id: str, after: Cursor | None, size: int
    ) -> Page:
        """A page of rejected events, of one client (None: of all), oldest first."""
        query: Document = {} if client_id is None else {"client_id": client_id}
        if user_id:
            query["user_id"] = ObjectId(user_id)
        if after:
            query["$or"] = _past(after, "$gt")
        order = {"created_time": ASCENDING, "_id": ASCENDING}
        rows = await self._rows(REJECTED, query, order, size + 1)
        return _page(rows, size, [_kept_from(row) for row in rows[:size]], _place)

    async def rejected_by_id(
        self, client_id: str | None, ids: list[ObjectId]
    ) -> dict[ObjectId, KeptUsage]:
        """Those rejected events of one client (None: of any) that are kept under `ids`."""
        query: Document = {"_id": {"$in": ids}}
        if client_id is not None:
            query["client_id"] = client_id
        rows = await self._rows(REJECTED, query, {"_id": ASCENDING}, len(ids))
        return {row["_id"]: _kept_from(row) for row in rows}

    async def count_rejected(self, client_id: str, limit: int) -> int:
        """How many events of a client are kept, counted up to `limit`."""
        with reachable():
            return await self._database.collection(REJECTED).count_documents(
                {"client_id": client_id}, limit=limit
            )

    async def discard_rejected(self, client_id: str | None, ids: list[ObjectId]) -> int:
        """Gives kept events up. Returns how many there were."""
        query: Document = {"_id": {"$in": ids}}
        if client_id is not None:
            query["client_id"] = client_id
        with reachable():
            result = await self._database.collection(REJECTED).delete_many(query)
        return result.deleted_count

    async def _rows(
        self, collection: str, query: Document, order: Mapping[str, int], limit: int
    ) -> list[Document]:
        with reachable():
            found = self._database.collection(collection).find(query).sort(order).limit(limit)
            return await found.to_list()


def _kept_from(row: Mapping[str, Any]) -> KeptUsage:
    return KeptUsage(
        RejectedUsage(
            row["_id"],
            row["client_id"],
            row["user_id"],
            bytes(row["event"]),
            error_from(row["error"]),
        ),
        milliseconds(row["created_time"]),
        milliseconds(row["expires_time"]),
    )


def _place(row: Mapping[str, Any]) -> Cursor:
    """Where a row stands in the order of time."""
    return [milliseconds(row["created_time"]), str(row["_id"])]


def _past(place: Cursor, comparison: str) -> list[Document]:
    """Rows beyond `place` in the order of time."""
    moment, last = date(int(place[0])), ObjectId(str(place[1]))
    return [
        {"created_time": {comparison: moment}},
        {"created_time": moment, "_id": {comparison: last}},
    ]


def _page(
    rows: list[Document], size: int, shown: list[Any], place: Callable[[Document], Cursor]
) -> Page:
    """`rows` has one more than the page when there is a next one."""
    return Page(shown, place(rows[size - 1]) if len(rows) > size else None)
