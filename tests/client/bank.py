"""A peer with books: wallets and lists over what a scripted Peer was sent.

Every event costs one micro-credit a token. `bend` may change a user's books
before they are read, so that a test can show that a reconciliation notices.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
from zaaz.credits.v1 import credits_service_pb2 as credits_pb
from zaaz.credits.v1.credits_service_pb2_grpc import (
    CreditsServiceServicer,
    add_CreditsServiceServicer_to_server,
)
from zaaz.credits.v1.usage_service_pb2 import UsageEvent
from zaaz.ledger.v1.credits_transaction_pb2 import (
    DECREASE_REASON_USAGE,
    TRANSACTION_TYPE_DECREASE,
    TRANSACTION_TYPE_INCREASE,
    CreditsTransaction,
)
from zaaz.ledger.v1.credits_usage_pb2 import CreditsUsage
from zaaz.ledger.v1.wallet_pb2 import Wallet
from zaaz.wallet.v1 import wallet_service_pb2 as wallet_pb
from zaaz.wallet.v1.wallet_service_pb2_grpc import (
    WalletServiceServicer,
    add_WalletServiceServicer_to_server,
)

from .peer import Peer

PAGE = 7
Context = grpc.aio.ServicerContext[object, object]


@dataclass
class Books:
    """One user's."""

    usages: list[CreditsUsage] = field(default_factory=list)
    transactions: list[CreditsTransaction] = field(default_factory=list)
    balance_micros: int = 0
    differences: list[wallet_pb.WalletDifference] = field(default_factory=list)


class Bank:
    """Adds the wallet and credits services to a peer's server."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.grants: dict[str, dict[str, int]] = {}
        self.bend: Callable[[Books], None] = lambda _: None
        self.failures_left = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        wallets = _Wallets(self)  # type: ignore[abstract]
        credits_ = _Credits(self)  # type: ignore[abstract]
        add_WalletServiceServicer_to_server(wallets, server)
        add_CreditsServiceServicer_to_server(credits_, server)

    def books(self, user_id: str) -> Books:
        books = Books()
        for request_id, micros in self.grants[user_id].items():
            books.balance_micros += micros
            books.transactions.append(
                CreditsTransaction(
                    id=request_id, type=TRANSACTION_TYPE_INCREASE, credits_micros=micros
                )
            )
        for writer in self._peer.writers.values():
            for event in writer.events:
                if event.user_id == user_id and event.usage_key not in self._peer.refused:
                    _bill(books, event)
        self.bend(books)
        return books

    async def falter(self, context: Context) -> None:
        if self.failures_left:
            self.failures_left -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "scripted failure")


class _Wallets(WalletServiceServicer):
    def __init__(self, bank: Bank) -> None:
        self._bank = bank

    async def CreateWallet(  # noqa: N802
        self,
        request: wallet_pb.CreateWalletRequest,
        context: Context,
    ) -> wallet_pb.CreateWalletResponse:
        await self._bank.falter(context)
        self._bank.grants.setdefault(request.user_id, {})
        return wallet_pb.CreateWalletResponse(wallet=Wallet(user_id=request.user_id))

    async def GetWallet(  # noqa: N802
        self,
        request: wallet_pb.GetWalletRequest,
        context: Context,
    ) -> wallet_pb.GetWalletResponse:
        await self._bank.falter(context)
        books = self._bank.books(request.user_id)
        wallet = Wallet(user_id=request.user_id, credits_micros=books.balance_micros)
        return wallet_pb.GetWalletResponse(wallet=wallet)

    async def VerifyWallet(  # noqa: N802
        self,
        request: wallet_pb.VerifyWalletRequest,
        context: Context,
    ) -> wallet_pb.VerifyWalletResponse:
        await self._bank.falter(context)
        books = self._bank.books(request.user_id)
        return wallet_pb.VerifyWalletResponse(differences=books.differences)


class _Credits(CreditsServiceServicer):
    def __init__(self, bank: Bank) -> None:
        self._bank = bank

    async def GrantCredits(  # noqa: N802
        self,
        request: credits_pb.GrantCreditsRequest,
        context: Context,
    ) -> credits_pb.GrantCreditsResponse:
        await self._bank.falter(context)
        self._bank.grants[request.user_id][request.request_id] = request.credits_micros
        return credits_pb.GrantCreditsResponse()

    async def ListCreditsUsages(  # noqa: N802
        self,
        request: credits_pb.ListCreditsUsagesRequest,
        context: Context,
    ) -> credits_pb.ListCreditsUsagesResponse:
        await self._bank.falter(context)
        rows = self._bank.books(request.user_id).usages
        start = int(request.page_token or 0)
        return credits_pb.ListCreditsUsagesResponse(
            credits_usages=rows[start : start + PAGE], next_page_token=_next(start, len(rows))
        )

    async def ListCreditsTransactions(  # noqa: N802
        self,
        request: credits_pb.ListCreditsTransactionsRequest,
        context: Context,
    ) -> credits_pb.ListCreditsTransactionsResponse:
        await self._bank.falter(context)
        rows = self._bank.books(request.user_id).transactions
        start = int(request.page_token or 0)
        return credits_pb.ListCreditsTransactionsResponse(
            credits_transactions=rows[start : start + PAGE],
            next_page_token=_next(start, len(rows)),
        )


def _next(start: int, count: int) -> str:
    return str(start + PAGE) if start + PAGE < count else ""


def _bill(books: Books, event: UsageEvent) -> None:
    cost = event.input_tokens + event.output_tokens
    paid = min(cost, books.balance_micros)
    books.balance_micros -= paid
    books.usages.append(
        CreditsUsage(
            user_id=event.user_id,
            usage_key=event.usage_key,
            ai_model=event.ai_model,
            input_tokens=event.input_tokens,
            output_tokens=event.output_tokens,
            occurred_time=event.occurred_time,
            credits_micros=cost,
            shortfall_micros=cost - paid,
        )
    )
    books.transactions.append(
        CreditsTransaction(
            type=TRANSACTION_TYPE_DECREASE,
            decrease_reason=DECREASE_REASON_USAGE,
            credits_micros=paid,
            usage_key=event.usage_key,
        )
    )
