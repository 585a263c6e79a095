"""Reads back what a run did to its wallets."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from zaaz.credits.v1.credits_service_pb2 import (
    ListCreditsTransactionsRequest,
    ListCreditsUsagesRequest,
)
from zaaz.ledger.v1.credits_transaction_pb2 import TRANSACTION_TYPE_INCREASE
from zaaz.ledger.v1.credits_usage_pb2 import CreditsUsage
from zaaz.wallet.v1.wallet_service_pb2 import GetWalletRequest, VerifyWalletRequest

from zaaz_client.client import ZaazClient
from zaaz_client.lists import iterate
from zaaz_client.replay.plan import Plan
from zaaz_client.replay.wallets import for_each
from zaaz_client.retry import retry

MAX_CONCURRENT_WALLETS: Final = 8
PAGE_SIZE: Final = 1_000
MAX_DIFFERENCES: Final = 20
"""So many are told in words; all are counted."""


@dataclass(slots=True)
class Books:
    """Sums over all wallets of a run. Amounts in micro-credits."""

    usages: int = 0
    transactions: int = 0
    """Decreases, each for one usage."""
    events_billed: int = 0
    """Different events of the run that have a usage of the right size and user."""
    charged_micros: int = 0
    shortfall_micros: int = 0
    """The part of the charges that wallets could not pay."""
    granted_micros: int = 0
    decreased_micros: int = 0
    balance_micros: int = 0
    sound_wallets: int = 0
    """Those that VerifyWallet has nothing to say about, and whose own sums agree."""
    difference_count: int = 0
    differences: list[str] = field(default_factory=list)

    def differ(self, what: str) -> None:
        """Note that something does not agree."""
        self.difference_count += 1
        if len(self.differences) < MAX_DIFFERENCES:
            self.differences.append(what)


async def read_books(
    client: ZaazClient, plan: Plan, patience_seconds: float, done: Callable[[], None]
) -> Books:
    """What the server says of the run's wallets; `done` is called after each."""
    books = Books()

    async def read(user: int) -> None:
        wallet = _WalletReader(client, plan, patience_seconds, user)
        await wallet.read(books)
        done()

    await for_each(read, range(len(plan.user_ids)), MAX_CONCURRENT_WALLETS)
    return books


class _WalletReader:
    """One wallet's usages, transactions, balance and verification."""

    def __init__(self, client: ZaazClient, plan: Plan, patience_seconds: float, user: int) -> None:
        self._client = client
        self._plan = plan
        self._patience_seconds = patience_seconds
        self._user = user
        self._user_id = plan.user_ids[user]

    async def read(self, total: Books) -> None:
        """Add the wallet to `total`."""
        own = Books()
        await self._read_usages(own)
        await self._read_transactions(own)
        await self._read_balance(own)
        await self._verify(own)
        self._compare(own)
        own.sound_wallets = int(not own.difference_count)
        _add(total, own)

    async def _read_usages(self, own: Books) -> None:
        expected = set(self._plan.indexes_of(self._user))
        async for usage in iterate(
            self._client.credits.ListCreditsUsages,
            ListCreditsUsagesRequest(user_id=self._user_id, page_size=PAGE_SIZE),
            retry_seconds=self._patience_seconds,
        ):
            own.usages += 1
            own.charged_micros += usage.credits_micros
            own.shortfall_micros += usage.shortfall_micros
            index = self._plan.index(usage.usage_key)
            if index not in expected:
                self._differ(own, f"usage {usage.usage_key} is there twice or not of this run")
                continue
            expected.remove(index)
            own.events_billed += 1
            self._compare_usage(own, index, usage)
        if expected:
            self._differ(own, f"{len(expected):,} events not billed, the first {min(expected):,}")

    def _compare_usage(self, own: Books, index: int, usage: CreditsUsage) -> None:
        event = self._plan.event(index)
        told = (usage.input_tokens, usage.output_tokens, usage.ai_model, usage.occurred_time)
        sent = (event.input_tokens, event.output_tokens, event.ai_model, event.occurred_time)
        if told != sent:
            self._differ(own, f"usage {usage.usage_key} does not say what was sent")

    async def _read_transactions(self, own: Books) -> None:
        async for transaction in iterate(
            self._client.credits.ListCreditsTransactions,
            ListCreditsTransactionsRequest(user_id=self._user_id, page_size=PAGE_SIZE),
            retry_seconds=self._patience_seconds,
        ):
            if transaction.type == TRANSACTION_TYPE_INCREASE:
                own.granted_micros += transaction.credits_micros
            else:
                own.transactions += 1
                own.decreased_micros += transaction.credits_micros

    async def _read_balance(self, own: Books) -> None:
        request = GetWalletRequest(user_id=self._user_id)
        answer = await retry(
            lambda: self._client.wallets.GetWallet(request), self._patience_seconds
        )
        own.balance_micros = answer.wallet.credits_micros

    async def _verify(self, own: Books) -> None:
        request = VerifyWalletRequest(user_id=self._user_id)
        answer = await retry(
            lambda: self._client.wallets.VerifyWallet(request), self._patience_seconds
        )
        for found in answer.differences:
            where = f"{found.field} at sequence {found.sequence}"
            self._differ(own, f"{where} is {found.actual}, should be {found.expected}")

    def _compare(self, own: Books) -> None:
        if own.charged_micros != own.decreased_micros + own.shortfall_micros:
            self._differ(
                own,
                f"charged {own.charged_micros:,}, but {own.decreased_micros:,} taken"
                f" and {own.shortfall_micros:,} short",
            )
        if own.granted_micros - own.balance_micros != own.decreased_micros:
            self._differ(
                own,
                f"granted {own.granted_micros:,}, {own.decreased_micros:,} taken,"
                f" but {own.balance_micros:,} left",
            )
        if own.usages != own.transactions:
            self._differ(own, f"{own.usages:,} usages, but {own.transactions:,} decreases")

    def _differ(self, own: Books, what: str) -> None:
        own.differ(f"user {self._user_id}: {what}")


def _add(total: Books, own: Books) -> None:
    for name in (
        "usages",
        "transactions",
        "events_billed",
        "charged_micros",
        "shortfall_micros",
        "granted_micros",
        "decreased_micros",
        "balance_micros",
        "sound_wallets",
    ):
        setattr(total, name, getattr(total, name) + getattr(own, name))
    for difference in own.differences:
        total.differ(difference)
    total.difference_count += own.difference_count - len(own.differences)
