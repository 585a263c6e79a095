"""What a wallet was at a moment, and what happened to it in a period.

A wallet's entries are numbered in the order of their making, so a moment is
found among them by bisection over the index that there is (user, sequence): an
index by user and time would cost every usage event a write.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import NamedTuple

from bson import ObjectId
from pymongo import ASCENDING

from server.kernel.principal import HOUSE_CLIENT
from server.ledger.dates import milliseconds
from server.ledger.documents import Document, entry_from
from server.ledger.expiry import expire
from server.ledger.model import DecreaseReason, Entry, Wallet, new_wallet
from server.ledger.reader import LedgerReader
from server.ledger.store import ENTRIES
from server.mongo.database import Database
from server.mongo.errors import reachable

PROBES = 32
"""Entries that one step of a bisection looks at: a million are searched in four."""

LATE_BATCH_ENTRIES = 100
"""Entries fetched at a time of those that time made and that were written late."""


class BalanceAt(NamedTuple):
    """How a wallet stood, and its last entry by then (0: it had none)."""

    sequence: int
    credits_micros: int
    held_micros: int
    debt_micros: int


class Place(NamedTuple):
    """How a wallet's books stood after one entry; `sequence` 0 is before the first."""

    sequence: int
    balance_micros: int
    chain: bytes


class StatementReader:
    """All methods may raise DEPENDENCY_UNAVAILABLE.

    A wallet is read before its entries: up to its sequence they are all there
    and never change, so that whatever is written meanwhile disturbs nothing.
    """

    def __init__(self, database: Database, reader: LedgerReader) -> None:
        self._database = database
        self._reader = reader

    async def wallet(self, user_id: str) -> Wallet:
        """The wallet as it was last written. WALLET_NOT_FOUND."""
        return await self._reader.stored_wallet(user_id)

    async def balance_at(self, user_id: str, time_ms: int) -> BalanceAt:
        """How the wallet was shown at `time_ms`, which is not in the future. WALLET_NOT_FOUND.

        What had expired by then counts, whether or not it had an entry yet.
        """
        wallet = await self.wallet(user_id)
        sequence = await self.count_before(wallet, time_ms + 1)
        if sequence == wallet.sequence:
            then = expire(wallet, time_ms).wallet
            return BalanceAt(sequence, then.credits_micros, then.held_micros, then.debt_micros)
        balances = BalanceAt(0, 0, 0, 0)
        if sequence:
            balances = _balances_after((await self._entries(wallet, [sequence]))[sequence])
        async with aclosing(self._after(wallet, sequence)) as late:
            return await _with_late(balances, late, time_ms)

    async def count_before(self, wallet: Wallet, time_ms: int) -> int:
        """How many of the wallet's entries were made before `time_ms`."""
        before, through = 0, wallet.sequence
        while before < through:
            probes = _spread(before, through)
            times = await self._times(wallet, probes)
            for probe in probes:
                # An entry removed behind our back has no time: a verification will name it.
                if times.get(probe, time_ms) < time_ms:
                    before = probe
                else:
                    through = probe - 1
                    break
        return before

    async def places(self, wallet: Wallet, sequences: tuple[int, int]) -> tuple[Place, Place]:
        """How the books stood after each of two entries."""
        found = await self._entries(wallet, [at for at in sequences if at])
        genesis = Place(0, 0, new_wallet(wallet.profile).chain)
        first, second = (
            Place(at, found[at].balance_after_micros, found[at].chain) if at else genesis
            for at in sequences
        )
        return first, second

    async def lines(self, user_id: str, after: int, through: int, size: int) -> list[Entry]:
        """Up to `size` entries after one sequence and through another, oldest first."""
        query = {"user_id": ObjectId(user_id), "sequence": {"$gt": after, "$lte": through}}
        with reachable():
            found = self._database.collection(ENTRIES).find(query)
            rows = await found.sort("sequence", ASCENDING).limit(size).to_list()
        return [entry_from(row) for row in rows]

    async def _entries(self, wallet: Wallet, sequences: list[int]) -> dict[int, Entry]:
        query = _among(wallet, sequences)
        with reachable():
            rows = await self._database.collection(ENTRIES).find(query).to_list()
        return {row["sequence"]: entry_from(row) for row in rows}

    async def _times(self, wallet: Wallet, sequences: list[int]) -> dict[int, int]:
        query, shown = _among(wallet, sequences), {"_id": 0, "sequence": 1, "created_time": 1}
        with reachable():
            rows = await self._database.collection(ENTRIES).find(query, shown).to_list()
        return {row["sequence"]: milliseconds(row["created_time"]) for row in rows}

    async def _after(self, wallet: Wallet, sequence: int) -> AsyncGenerator[Entry, None]:
        query = {
            "user_id": wallet.profile.user_id,
            "sequence": {"$gt": sequence, "$lte": wallet.sequence},
        }
        found = self._database.collection(ENTRIES).find(query, batch_size=LATE_BATCH_ENTRIES)
        with reachable():
            async with found.sort("sequence", ASCENDING) as cursor:
                async for row in cursor:
                    yield entry_from(row)


def _among(wallet: Wallet, sequences: list[int]) -> Document:
    return {"user_id": wallet.profile.user_id, "sequence": {"$in": sequences}}


def _spread(after: int, through: int) -> list[int]:
    """Up to PROBES sequences over (after, through], evenly and in order; the last is `through`."""
    span = through - after
    steps = min(span, PROBES)
    return [after + span * step // steps for step in range(1, steps + 1)]


def _balances_after(entry: Entry) -> BalanceAt:
    return BalanceAt(
        entry.sequence,
        entry.balance_after_micros,
        entry.held_after_micros,
        entry.debt_after_micros,
    )


async def _with_late(then: BalanceAt, late: AsyncIterator[Entry], time_ms: int) -> BalanceAt:
    """The balances with what time had done by `time_ms` and what was written only afterwards.

    Those entries come before any other, since every operation first settles what is due.
    """
    credits_, held, debt = then[1:]
    before = then
    async for entry in late:
        if not _is_of_time(entry):
            break
        after = _balances_after(entry)
        if _occurred_ms(entry) <= time_ms:
            credits_ += after.credits_micros - before.credits_micros
            held += after.held_micros - before.held_micros
            debt += after.debt_micros - before.debt_micros
        before = after
    return BalanceAt(then.sequence, credits_, held, debt)


def _is_of_time(entry: Entry) -> bool:
    """Whether nobody asked for it: a grant or a hold that ran out."""
    if entry.cause.client_id != HOUSE_CLIENT:
        return False
    if entry.usage is not None:
        return entry.decrease_reason == DecreaseReason.CAPTURE
    return not entry.cause.request_id


def _occurred_ms(entry: Entry) -> int:
    return entry.cause.occurred_ms if entry.usage is None else entry.usage.occurred_ms
