"""Every account's movements over a period, all wallets together.

The two sides are reckoned apart: the counter-accounts from what the entries say
they moved, the wallets from how their balances changed from the first entry of
the period to the last. Only if every entry between is there and says what it
did do they sum to zero.
"""

import asyncio
from typing import Any, NamedTuple

from pymongo.errors import ExecutionTimeout

from server.kernel.errors import DomainError, Reason, field_invalid
from server.kernel.money import in_range
from server.ledger.dates import date
from server.ledger.documents import Document
from server.ledger.store import ENTRIES
from server.mongo.database import Database
from server.mongo.errors import reachable

WALLETS_ACCOUNT = "wallets"
"""The other side of every counter-account."""

MAX_ENTRIES = 1_000_000
"""Entries that one trial balance adds up; a longer period is asked for in parts."""

MAX_MS = 25_000
"""How long mongod may add up; less than the deadline of a unary call."""

MAX_CONCURRENT = 1
"""It keeps a core of mongod busy: who asks meanwhile waits, up to the call's deadline."""


class Account(NamedTuple):
    """What moved on one account, in micro-credits."""

    name: str
    debit_micros: int
    credit_micros: int
    transactions: int

    @property
    def net_micros(self) -> int:
        """Credit less debit."""
        return self.credit_micros - self.debit_micros


class TrialBalance:
    """May raise DEPENDENCY_UNAVAILABLE."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = asyncio.Semaphore(MAX_CONCURRENT)

    async def over(self, start_ms: int, end_ms: int) -> list[Account]:
        """The accounts of the entries made in [start_ms, end_ms), by name.

        FIELD_INVALID for a period with more than MAX_ENTRIES entries,
        AMOUNT_OUT_OF_RANGE, DEADLINE_EXCEEDED.
        """
        period = {"created_time": {"$gte": date(start_ms), "$lt": date(end_ms)}}
        async with self._turn:
            await self._check_size(period)
            try:
                with reachable():
                    found = await self._database.collection(ENTRIES).aggregate(
                        _pipeline(period), maxTimeMS=MAX_MS, allowDiskUse=True
                    )
                    rows = await found.to_list()
            except ExecutionTimeout:
                raise _too_slow() from None
        return [_account(row) for row in rows]

    async def _check_size(self, period: Document) -> None:
        with reachable():
            count = await self._database.collection(ENTRIES).count_documents(
                period, limit=MAX_ENTRIES + 1
            )
        if count > MAX_ENTRIES:
            raise field_invalid(
                "start_time",
                f"the period has more than {MAX_ENTRIES:,} transactions: ask for a shorter one",
            )


def _pipeline(period: Document) -> list[Document]:
    signed = "$signed_micros"
    before: Document = {"$subtract": ["$balance_after_micros", signed]}
    # A wallet begins with nothing; before another entry, it had what that one says.
    opening = {"$cond": [{"$eq": ["$sequence", 1]}, 0, before]}
    return [
        {"$match": period},
        {
            # What enters a wallet is debited to where it comes from.
            "$group": {
                "_id": {"wallet": "$user_wallet_id", "account": "$counter_account"},
                "debit": {"$sum": {"$max": [signed, 0]}},
                "credit": {"$sum": {"$max": [{"$multiply": [signed, -1]}, 0]}},
                "transactions": {"$sum": 1},
                # Compared field by field, so the sequence decides.
                "first": {"$min": {"sequence": "$sequence", "balance": opening}},
                "last": {"$max": {"sequence": "$sequence", "balance": "$balance_after_micros"}},
            }
        },
        {
            "$group": {
                "_id": "$_id.wallet",
                "accounts": {
                    "$push": {
                        "account": "$_id.account",
                        "debit": "$debit",
                        "credit": "$credit",
                        "transactions": "$transactions",
                    }
                },
                "increased": {"$sum": "$debit"},
                "transactions": {"$sum": "$transactions"},
                "first": {"$min": "$first"},
                "last": {"$max": "$last"},
            }
        },
        {"$project": {"account": {"$concatArrays": ["$accounts", [_wallet_side()]]}}},
        {"$unwind": "$account"},
        {
            "$group": {
                "_id": "$account.account",
                "debit": {"$sum": "$account.debit"},
                "credit": {"$sum": "$account.credit"},
                "transactions": {"$sum": "$account.transactions"},
            }
        },
        {"$sort": {"_id": 1}},
    ]


def _wallet_side() -> Document:
    """What a wallet gained is what its entries say; what it lost, its balances."""
    gained = {"$subtract": ["$last.balance", "$first.balance"]}
    return {
        "account": {"$literal": WALLETS_ACCOUNT},
        "debit": {"$subtract": ["$increased", gained]},
        "credit": "$increased",
        "transactions": "$transactions",
    }


def _account(row: dict[str, Any]) -> Account:
    # A sum beyond int64 comes as a double.
    debit, credit = int(row["debit"]), int(row["credit"])
    return Account(
        row["_id"],
        in_range("debit_micros", debit),
        in_range("credit_micros", credit),
        row["transactions"],
    )


def _too_slow() -> DomainError:
    return DomainError(
        Reason.DEADLINE_EXCEEDED,
        "the period has too many transactions to add up in time: ask for a shorter one",
        {"limit_seconds": MAX_MS / 1_000},
    )
