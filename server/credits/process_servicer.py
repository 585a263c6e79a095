"""zaaz.credits.v1.CreditsProcessService: between the contract's messages and the ledger."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from zaaz.common.v1.error_reason_pb2 import ErrorReason
from zaaz.credits.v1 import credits_process_service_pb2 as pb
from zaaz.credits.v1.credits_process_service_pb2_grpc import CreditsProcessServiceServicer
from zaaz.ledger.v1 import hold_pb2

from server.credits.bypass import bypasses_expiry
from server.credits.entitlement import Entitlements, Estimate, Included, Question
from server.credits.explanation import Explainer
from server.credits.freshness import Freshness, rests_on_books
from server.credits.pricing import Pricing, charge_at
from server.credits.transactions import credits_transaction
from server.kernel.clock import Clock
from server.kernel.errors import DomainError
from server.kernel.ids import new_id, parse_id
from server.kernel.paging import PageTokens, page_size
from server.kernel.principal import current_principal
from server.kernel.timestamps import storable_time, timestamp
from server.ledger.draft import HoldRow
from server.ledger.hold_service import HoldLedger, HoldTerms, KnownHold
from server.ledger.holds import FundsRefusedError, PackageChangedError
from server.ledger.jobs import Posted
from server.ledger.messages import hold_message, wallet_message
from server.ledger.model import DisconnectPolicy, Priced, Tokens, Wallet
from server.ledger.operations import ExtendHold
from server.ledger.reader import LedgerReader
from server.ledger.service import Caller

MAX_PAGE_SIZE = 1_000
DEFAULT_TTL_MS = 300_000
MAX_TRIES = 3
"""Of a hold whose wallet gets another package each time that the catalog has been asked."""

_Answer = TypeVar(
    "_Answer",
    pb.AuthorizeUsageResponse,
    pb.ExtendHoldResponse,
    pb.CaptureHoldResponse,
    pb.ReleaseHoldResponse,
)


class CreditsProcessServicer(CreditsProcessServiceServicer):
    """May a user do this, and what did it come to."""

    def __init__(
        self,
        holds: HoldLedger,
        reader: LedgerReader,
        entitlements: Entitlements,
        explainer: Explainer,
        pricing: Pricing,
        freshness: Freshness,
        page_tokens: PageTokens,
        clock: Clock,
    ) -> None:
        self._holds = holds
        self._reader = reader
        self._entitlements = entitlements
        self._explainer = explainer
        self._pricing = pricing
        self._freshness = freshness
        self._page_tokens = page_tokens
        self._clock = clock

    async def AuthorizeUsage(
        self, request: pb.AuthorizeUsageRequest, context: Any
    ) -> pb.AuthorizeUsageResponse:
        """Set credits aside, or say every reason against it."""
        question, caller = _question(request), _caller(request.request_id)
        terms = _terms(request, question)
        for _ in range(MAX_TRIES - 1):
            with suppress(PackageChangedError):
                return await self._authorize(question, caller, terms, fresh=request.fresh)
        return await self._authorize(question, caller, terms, fresh=True)

    async def CheckAccess(
        self, request: pb.CheckAccessRequest, context: Any
    ) -> pb.CheckAccessResponse:
        """The same question without a hold."""
        question, now_ms = _question(request), self._clock()
        included: Included | None
        if request.fresh:
            wallet, included = await self._renewed(question, request.user_id)
        else:
            wallet = await self._holds.wallet(request.user_id)
            # Seldom waited for: what is in memory is found without.
            included = self._entitlements.included(question, wallet)
            if included is None:
                included = await self._entitlements.load(question, wallet)
        try:
            estimate = self._entitlements.estimate(question, now_ms)
            denials = self._entitlements.all_denials(question, wallet, included, estimate)
        except DomainError as error:
            if not rests_on_books(error):
                raise
            estimate, denials = None, ()
        if denials or estimate is None:
            # Another process may have let in what this one does not know of yet.
            wallet, included = await self._renewed(question, request.user_id)
            estimate = self._entitlements.estimate(question, now_ms)
            denials = self._entitlements.all_denials(question, wallet, included, estimate)
        expired = wallet.profile.expires_ms <= now_ms and not question.bypass_expiry
        return pb.CheckAccessResponse(
            allowed=not denials,
            denials=[_denial(error) for error in denials],
            estimate=_estimate(estimate),
            available_micros=0 if expired else max(0, wallet.available_micros),
        )

    async def EstimateCost(
        self, request: pb.EstimateCostRequest, context: Any
    ) -> pb.EstimateCostResponse:
        """What a use would cost."""
        tokens = Tokens(
            request.input_tokens,
            request.output_tokens,
            request.cache_read_tokens,
            request.cache_write_tokens,
        )
        question = Question(request.feature_endpoint, request.ai_model, tokens)
        time_ms = self._clock()
        if request.HasField("time"):
            time_ms = storable_time("time", request.time)
        estimate = self._entitlements.estimate(question, time_ms)
        return pb.EstimateCostResponse(estimate=_estimate(estimate))

    async def ExtendHold(
        self, request: pb.ExtendHoldRequest, context: Any
    ) -> pb.ExtendHoldResponse:
        """More time, more credits, word of what was used."""
        hold_id = parse_id("hold_id", request.hold_id)
        known = await self._holds.find(hold_id, _own())
        caller = _caller(request.request_id)
        reported = None
        if request.HasField("reported"):
            reported = _priced(known, _used(request.reported))
        ttl_ms = _ttl(request) if request.HasField("ttl") else None
        operation = ExtendHold(
            new_id(),
            known.user_id,
            hold_id,
            ttl_ms,
            self._raised(request, known),
            reported,
            self._holds.cause(caller),
        )
        asked = (
            request.hold_id,
            ttl_ms,
            request.max_input_tokens,
            request.max_output_tokens,
            None if reported is None else (*reported.tokens,),
        )
        posted = await self._holds.extend(caller, operation, asked)
        return self._after(posted, pb.ExtendHoldResponse())

    async def CaptureHold(
        self, request: pb.CaptureHoldRequest, context: Any
    ) -> pb.CaptureHoldResponse:
        """Bill what was really used."""
        hold_id = parse_id("hold_id", request.hold_id)
        known = await self._holds.find(hold_id, _own())
        priced = None
        if request.HasField("usage"):
            priced = _priced(known, _used(request.usage))
        posted = await self._holds.capture(
            _caller(request.request_id),
            hold_id,
            known.user_id,
            priced,
            request.usage_key,
            request.labels,
        )
        assert posted.entry is not None
        answer = self._after(posted, pb.CaptureHoldResponse())
        credits_transaction(posted.entry, self._pricing, answer.transaction)
        return answer

    async def ReleaseHold(
        self, request: pb.ReleaseHoldRequest, context: Any
    ) -> pb.ReleaseHoldResponse:
        """Give a hold up."""
        hold_id = parse_id("hold_id", request.hold_id)
        known = await self._holds.find(hold_id, _own())
        caller = _caller(request.request_id)
        posted = await self._holds.release(caller, hold_id, known.user_id, request.reason)
        return self._after(posted, pb.ReleaseHoldResponse())

    async def ListHolds(self, request: pb.ListHoldsRequest, context: Any) -> pb.ListHoldsResponse:
        """One page of holds, newest first."""
        query = f"ListHolds\0{request.user_id}\0{request.state}"
        after = self._page_tokens.read(query, request.page_token)
        size = page_size(request.page_size, MAX_PAGE_SIZE)
        page = await self._reader.holds(request.user_id, request.state, after, size)
        rows = [_message(await self._holds.as_of_now(row)) for row in page.rows]
        return pb.ListHoldsResponse(
            # One whose time is over may be listed as active still; it is not.
            holds=[hold for hold in rows if request.state in (0, hold.state)],
            next_page_token=self._page_tokens.next(query, page.cursor),
        )

    async def GetHold(self, request: pb.GetHoldRequest, context: Any) -> pb.GetHoldResponse:
        """One hold."""
        row = await self._reader.hold(parse_id("id", request.id))
        return pb.GetHoldResponse(hold=_message(await self._holds.as_of_now(row)))

    async def ExplainCharge(
        self, request: pb.ExplainChargeRequest, context: Any
    ) -> pb.ExplainChargeResponse:
        """How a charge came about."""
        return await self._explainer.explain(request, current_principal())

    async def _authorize(
        self, question: Question, caller: Caller, terms: HoldTerms, *, fresh: bool
    ) -> pb.AuthorizeUsageResponse:
        """PackageChangedError: what was asked of the catalog does not hold for the wallet."""
        now_ms = self._clock()
        included: Included | None
        if fresh:
            wallet, included = await self._renewed(question, terms.user_id)
        else:
            wallet = await self._holds.recalled(terms.user_id)
            included = self._entitlements.included(question, wallet)
            if included is None:
                included = await self._entitlements.load(question, wallet)
        if not self._entitlements.lets(question, wallet, included, now_ms):
            # What was allowed may be gone by now: its replay is answered all the same.
            earlier = await self._holds.placed_before(caller, terms)
            if earlier is not None:
                return self._allowed(earlier)
            # Another process may have let in what this one does not know of yet.
            wallet, included = await self._renewed(question, terms.user_id)
            estimate = self._entitlements.estimate(question, now_ms)
            if self._entitlements.denials(question, wallet, included):
                denials = self._entitlements.all_denials(question, wallet, included, estimate)
                return _denied(denials, estimate)
        prices = self._pricing.pin(question.feature_endpoint, question.ai_model, now_ms)
        bound = Priced(question.tokens, charge_at(prices, question.tokens))
        try:
            posted = await self._holds.place(
                caller, terms, bound, prices, now_ms, asked_of=wallet.profile
            )
            return self._allowed(posted)
        except FundsRefusedError as refused:
            return _denied(refused.all, Estimate(bound, now_ms))

    async def _renewed(self, question: Question, user_id: str) -> tuple[Wallet, Included]:
        """The wallet as it is stored, the books as they are now."""
        await self._freshness.renew()
        wallet = await self._holds.wallet(user_id, fresh=True)
        return wallet, await self._entitlements.load(question, wallet)

    def _raised(
        self, request: pb.ExtendHoldRequest, known: KnownHold
    ) -> Callable[[Tokens], Priced] | None:
        """What makes the hold's new bound by its pinned prices; None: it stays as it is."""
        most_input, most_output = request.max_input_tokens, request.max_output_tokens
        if not most_input and not most_output:
            return None

        def raised(before: Tokens) -> Priced:
            tokens = Tokens(max(before.input, most_input), max(before.output, most_output))
            return _priced(known, tokens)

        return raised

    def _allowed(self, posted: Posted) -> pb.AuthorizeUsageResponse:
        assert posted.hold is not None
        placed = posted.hold.hold
        estimate = _estimate(Estimate(placed.bound, placed.priced_ms))
        return self._after(posted, pb.AuthorizeUsageResponse(allowed=True, estimate=estimate))

    def _after(self, posted: Posted, answer: _Answer) -> _Answer:
        assert posted.hold is not None
        hold_message(posted.wallet.profile, posted.hold, answer.hold)
        wallet_message(posted.wallet, self._clock(), answer.wallet)
        return answer


def _denied(denials: Sequence[DomainError], estimate: Estimate) -> pb.AuthorizeUsageResponse:
    return pb.AuthorizeUsageResponse(
        denials=[_denial(error) for error in denials], estimate=_estimate(estimate)
    )


def _priced(known: KnownHold, tokens: Tokens) -> Priced:
    """Tokens by the prices that were in force when the hold was placed."""
    return Priced(tokens, charge_at(known.prices, tokens))


def _question(request: pb.AuthorizeUsageRequest | pb.CheckAccessRequest) -> Question:
    """SCOPE_MISSING."""
    tokens = Tokens(request.max_input_tokens, request.max_output_tokens)
    endpoint, ai_model, words = request.feature_endpoint, request.ai_model, request.words
    return Question(endpoint, ai_model, tokens, words, bypasses_expiry(request))


def _terms(request: pb.AuthorizeUsageRequest, question: Question) -> HoldTerms:
    return HoldTerms(
        request.user_id,
        question.tokens,
        _ttl(request) if request.HasField("ttl") else DEFAULT_TTL_MS,
        request.disconnect_policy or DisconnectPolicy.RELEASE,
        question.feature_endpoint,
        question.ai_model,
        question.words,
        dict(request.labels) if request.labels else None,
        question.bypass_expiry,
    )


def _ttl(request: pb.AuthorizeUsageRequest | pb.ExtendHoldRequest) -> int:
    return request.ttl.seconds * 1_000 + request.ttl.nanos // 1_000_000


def _used(usage: pb.HoldUsage) -> Tokens:
    return Tokens(
        usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens
    )


def _estimate(estimate: Estimate) -> pb.CostEstimate:
    charge = estimate.priced.charge
    return pb.CostEstimate(
        credits_micros=charge.credits_micros,
        input_credits_micros=charge.input_credits_micros,
        output_credits_micros=charge.output_credits_micros,
        endpoint_credits_micros=charge.endpoint_credits_micros,
        priced_time=timestamp(estimate.priced_ms),
    )


def _denial(error: DomainError) -> pb.Denial:
    return pb.Denial(
        reason=ErrorReason.Value(f"ERROR_REASON_{error.reason.value}"),
        message=error.message,
        metadata=error.metadata,
    )


def _message(row: HoldRow) -> hold_pb2.Hold:
    return hold_message(row.profile, row.change)


def _caller(request_id: str) -> Caller:
    return Caller(current_principal().client_id, request_id)


def _own() -> str | None:
    """Whose holds the caller may touch: its own, an administrator anyone's."""
    principal = current_principal()
    return None if principal.is_admin else principal.client_id
