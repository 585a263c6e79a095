"""zaaz.credits.v1.CreditsService: between the contract's messages and the ledger."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from zaaz.credits.v1 import credits_service_pb2 as pb

from server.credits.bypass import bypasses_expiry
from server.credits.prices.seed import Seed
from server.credits.prices_servicer import PricesServicer
from server.credits.pricing import Pricing, endpoint_not_found
from server.credits.resources import RESOURCES
from server.credits.transactions import credits_transaction
from server.kernel.clock import Clock
from server.kernel.errors import DomainError, Reason
from server.kernel.ids import parse_id
from server.kernel.paging import PageTokens, page_size
from server.kernel.principal import current_principal
from server.kernel.timestamps import storable_time
from server.ledger.jobs import Posted
from server.ledger.messages import (
    usage_message,
    wallet_message,
)
from server.ledger.model import NEVER_MS
from server.ledger.reader import LedgerReader
from server.ledger.service import Caller, Details, Ledger, UsedEndpoint
from server.resources.binder import bind
from server.resources.engine import Resources
from server.rpc.errors import to_status

MAX_PAGE_SIZE = 1_000
_Answer = TypeVar(
    "_Answer",
    pb.GrantCreditsResponse,
    pb.ConsumeCreditsResponse,
    pb.ReverseCreditsTransactionResponse,
)


class CreditsServicer(PricesServicer):
    """Thin: the ledger moves the credits, and the engine changes the rows that price them."""

    def __init__(
        self,
        ledger: Ledger,
        reader: LedgerReader,
        pricing: Pricing,
        resources: Resources,
        published: Callable[[], Seed],
        page_tokens: PageTokens,
        clock: Clock,
    ) -> None:
        super().__init__(resources, published)
        bind(self, pb.DESCRIPTOR.services_by_name["CreditsService"], resources, *RESOURCES)
        self._ledger = ledger
        self._pricing = pricing
        self._reader = reader
        self._page_tokens = page_tokens
        self._clock = clock

    async def GrantCredits(
        self, request: pb.GrantCreditsRequest, context: Any
    ) -> pb.GrantCreditsResponse:
        """Add credits."""
        expires_ms = NEVER_MS
        if request.HasField("expires_time"):
            expires_ms = storable_time("expires_time", request.expires_time)
        posted = await self._ledger.add_grant(
            _caller(request.request_id),
            request.user_id,
            request.credits_micros,
            request.source,
            priority=request.priority,
            expires_ms=expires_ms,
            details=_details(request),
        )
        return self._answer(pb.GrantCreditsResponse(), posted)

    async def ConsumeCredits(
        self, request: pb.ConsumeCreditsRequest, context: Any
    ) -> pb.ConsumeCreditsResponse:
        """Take credits."""
        return await self._consume(request)

    async def BatchConsumeCredits(
        self, request: pb.BatchConsumeCreditsRequest, context: Any
    ) -> pb.BatchConsumeCreditsResponse:
        """Many consumptions, each on its own."""
        results = await asyncio.gather(*map(self._try_consume, request.requests))
        return pb.BatchConsumeCreditsResponse(results=results)

    async def ReverseCreditsTransaction(
        self, request: pb.ReverseCreditsTransactionRequest, context: Any
    ) -> pb.ReverseCreditsTransactionResponse:
        """Take a transaction back."""
        posted = await self._ledger.reverse(
            _caller(request.request_id), parse_id("id", request.id), request.reason
        )
        return self._answer(pb.ReverseCreditsTransactionResponse(), posted)

    async def ListCreditsTransactions(
        self, request: pb.ListCreditsTransactionsRequest, context: Any
    ) -> pb.ListCreditsTransactionsResponse:
        """One page of transactions, newest first."""
        query = f"ListCreditsTransactions\0{request.user_id}"
        after = self._page_tokens.read(query, request.page_token)
        size = page_size(request.page_size, MAX_PAGE_SIZE)
        page = await self._reader.entries(request.user_id, after, size)
        answer = pb.ListCreditsTransactionsResponse(
            next_page_token=self._page_tokens.next(query, page.cursor)
        )
        for entry in page.rows:
            credits_transaction(entry, self._pricing, answer.credits_transactions.add())
        return answer

    async def GetCreditsTransaction(
        self, request: pb.GetCreditsTransactionRequest, context: Any
    ) -> pb.GetCreditsTransactionResponse:
        """One transaction."""
        entry = await self._reader.entry(parse_id("id", request.id))
        answer = pb.GetCreditsTransactionResponse()
        credits_transaction(entry, self._pricing, answer.credits_transaction)
        return answer

    async def ListCreditsUsages(
        self, request: pb.ListCreditsUsagesRequest, context: Any
    ) -> pb.ListCreditsUsagesResponse:
        """One page of usages, newest first."""
        query = f"ListCreditsUsages\0{request.user_id}"
        after = self._page_tokens.read(query, request.page_token)
        size = page_size(request.page_size, MAX_PAGE_SIZE)
        page = await self._reader.entries(request.user_id, after, size, only_usage=True)
        internal = current_principal().is_admin
        answer = pb.ListCreditsUsagesResponse(
            next_page_token=self._page_tokens.next(query, page.cursor)
        )
        for entry in page.rows:
            usage_message(entry, answer.credits_usages.add(), internal=internal)
        return answer

    async def GetCreditsUsage(
        self, request: pb.GetCreditsUsageRequest, context: Any
    ) -> pb.GetCreditsUsageResponse:
        """One usage."""
        missing = DomainError(
            Reason.USAGE_NOT_FOUND, f"no usage has the id {request.id}", {"id": request.id}
        )
        try:
            entry = await self._reader.entry(parse_id("id", request.id))
        except DomainError as error:
            raise missing if error.reason is Reason.TRANSACTION_NOT_FOUND else error from None
        if entry.usage is None:
            raise missing
        internal = current_principal().is_admin
        return pb.GetCreditsUsageResponse(credits_usage=usage_message(entry, internal=internal))

    async def _consume(self, request: pb.ConsumeCreditsRequest) -> pb.ConsumeCreditsResponse:
        return self._answer(pb.ConsumeCreditsResponse(), await self._consumed(request))

    async def _consumed(self, request: pb.ConsumeCreditsRequest) -> Posted:
        caller, value = _caller(request.request_id), request.feature_endpoint
        asked = (caller, request.user_id, request.credits_micros, _details(request))
        bypass = bypasses_expiry(request)
        if not value:
            return await self._ledger.consume(*asked, bypass_expiry=bypass)
        endpoint_id = self._pricing.endpoint_id(value)
        if endpoint_id is not None:
            used = UsedEndpoint(value, endpoint_id)
            return await self._ledger.consume(*asked, used, bypass_expiry=bypass)
        # It may have been there when this was asked first.
        earlier = await self._ledger.consumed_before(*asked, value, bypass_expiry=bypass)
        if earlier is None:
            raise endpoint_not_found(value)
        return earlier

    async def _try_consume(self, request: pb.ConsumeCreditsRequest) -> pb.ConsumeCreditsResult:
        try:
            return pb.ConsumeCreditsResult(response=await self._consume(request))
        except DomainError as error:
            return pb.ConsumeCreditsResult(error=to_status(error))

    def _answer(self, answer: _Answer, posted: Posted) -> _Answer:
        if posted.entry is None:
            raise ValueError("an operation that moves credits makes an entry")
        credits_transaction(posted.entry, self._pricing, answer.transaction)
        wallet_message(posted.wallet, self._clock(), answer.wallet)
        return answer


def _caller(request_id: str) -> Caller:
    return Caller(current_principal().client_id, request_id)


def _details(request: pb.GrantCreditsRequest | pb.ConsumeCreditsRequest) -> Details:
    # The order of a protobuf map changes from message to message; a dict's can be sorted.
    return Details(request.reason, dict(request.labels))
