"""Asking, working and billing as one block: `client.credit_process`."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from uuid import uuid4

from zaaz.credits.v1.credits_process_service_pb2 import (
    AuthorizeUsageRequest,
    AuthorizeUsageResponse,
    CaptureHoldRequest,
    CaptureHoldResponse,
    CostEstimate,
    HoldUsage,
    ReleaseHoldRequest,
)
from zaaz.credits.v1.usage_service_pb2 import RecordUsageRequest, UsageEvent, UsageReceipt
from zaaz.ledger.v1.hold_pb2 import Hold

from zaaz_client.errors import HoldEnded, ZaazError
from zaaz_client.hold_keeper import HoldKeeper
from zaaz_client.process_errors import UsageNotReported, not_authorized
from zaaz_client.retry import retry_within
from zaaz_client.status import from_status
from zaaz_client.winding_up import outlast, see_through

if TYPE_CHECKING:
    from zaaz.credits.v1.credits_process_service_pb2_grpc import CreditsProcessServiceAsyncStub
    from zaaz.credits.v1.usage_service_pb2_grpc import UsageServiceAsyncStub

MAX_REASON_CHARACTERS: Final = 500

_log = logging.getLogger("zaaz_client")


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditProcessSettings:
    """Times of a credit process, in seconds."""

    authorize_timeout_seconds: float = 10.0
    """How long AuthorizeUsage is tried while nobody answers."""
    settle_timeout_seconds: float = 30.0
    """How long the capture or the release is tried."""
    cancel_timeout_seconds: float = 5.0
    """The same after a cancellation, which has to come through."""
    report_interval_seconds: float = 10.0
    """How often the server is told what was reported, should this process die."""
    max_extended_seconds: float = 3_600.0
    """For how long the hold is extended. Then it ends by itself."""


DEFAULT_PROCESS_SETTINGS: Final = CreditProcessSettings()


@dataclass(frozen=True, slots=True)
class Charge:
    """What a credit process came to, in micro-credits."""

    transaction_id: str
    cost_micros: int
    """What it cost."""
    shortfall_micros: int
    """The part of it that the wallet could not pay."""
    balance_after_micros: int
    late: bool = False
    """The hold had run out, so it was billed as usage is."""


class CreditProcess:
    """A use of credits: authorized at `async with`, billed at its end.

        async with client.credit_process(
            user_id, ai_model=model, max_input_tokens=1_000, max_output_tokens=500
        ) as use:
            answer = await ask_the_model()
            use.report(input_tokens=answer.input_tokens, output_tokens=answer.output_tokens)
        print(use.cost_micros)

    Entering sets the credits aside, or raises NotAuthorized. While the block
    runs, the hold is kept alive. Its end, whatever it is:

    - something was reported: that is billed, after an exception or a
      cancellation too, since the usage has happened;
    - an exception, and nothing was reported: the hold is released;
    - no exception, and nothing was reported: a use of an endpoint without a
      model or tokens is billed as it was authorized; any other is released, and
      UsageNotReported is raised, since every figure would be a guess;
    - `release()` was called: the hold is released.

    A settlement that fails is raised, unless the block itself has raised: then
    it is logged, and noted on that exception. A hold that nobody could settle
    ends when its time runs out, by its disconnect policy.
    """

    def __init__(
        self,
        process: "CreditsProcessServiceAsyncStub",
        usage: "UsageServiceAsyncStub",
        request: AuthorizeUsageRequest,
        *,
        usage_key: str,
        settings: CreditProcessSettings,
    ) -> None:
        self._process = process
        self._usage = usage
        self._request = request
        self._usage_key = usage_key
        self._settings = settings
        self._hold: Hold | None = None
        self._keeper: HoldKeeper | None = None
        self._reported: HoldUsage | None = None
        self._release_reason: str | None = None
        self.estimate = CostEstimate()
        """What it costs at most."""
        self.charge: Charge | None = None
        """What it came to; None before the end, and when nothing was billed."""

    @property
    def hold(self) -> Hold:
        """The hold as it was placed. RuntimeError before that."""
        if self._hold is None:
            raise RuntimeError("not authorized yet: use `async with client.credit_process(...)`")
        return self._hold

    @property
    def cost_micros(self) -> int:
        """What it came to, in micro-credits; 0 before the end, and when nothing was billed."""
        return 0 if self.charge is None else self.charge.cost_micros

    def report(
        self,
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
    ) -> None:
        """Say what was used so far, all in all: the last report counts.

        Cache tokens are counted beside input tokens, not in them. ValueError
        for what is below zero.
        """
        given = (input_tokens, output_tokens, cache_read_tokens, cache_write_tokens)
        if min(given) < 0:
            raise ValueError("tokens are counted from zero up")
        self._reported = HoldUsage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cache_read_tokens=cache_read_tokens,
            cache_write_tokens=cache_write_tokens,
        )

    def release(self, reason: str = "") -> None:
        """Bill nothing: the block's end is to give the hold up, whatever was reported."""
        self._release_reason = reason

    async def __aenter__(self) -> Self:
        if self._keeper is not None:
            raise RuntimeError("a credit process is for one use: make another")
        opening = asyncio.create_task(self._authorize())
        try:
            await asyncio.wait({opening})
        except asyncio.CancelledError:
            grace_seconds = self._settings.cancel_timeout_seconds
            await see_through(asyncio.create_task(self._give_up(opening)), grace_seconds)
            raise
        answer = opening.result()
        self.estimate = answer.estimate
        if not answer.allowed:
            raise not_authorized(answer)
        self._hold = answer.hold
        self._keeper = HoldKeeper(
            self._process,
            answer.hold,
            lambda: self._reported,
            report_interval_seconds=self._settings.report_interval_seconds,
            max_seconds=self._settings.max_extended_seconds,
        )
        self._keeper.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if exc_val is None:
            await outlast(self._settle(None), self._settings.cancel_timeout_seconds)
        elif isinstance(exc_val, asyncio.CancelledError):
            limit_seconds = self._settings.cancel_timeout_seconds
            await see_through(asyncio.create_task(self._settle_after(exc_val)), limit_seconds)
        else:
            await outlast(self._settle_after(exc_val), self._settings.cancel_timeout_seconds)

    async def _authorize(self) -> AuthorizeUsageResponse:
        limit_seconds = self._settings.authorize_timeout_seconds
        return await retry_within(self._process.AuthorizeUsage, self._request, limit_seconds)

    async def _give_up(self, opening: "asyncio.Task[AuthorizeUsageResponse]") -> None:
        """Release what an AuthorizeUsage sets aside whose caller has gone."""
        try:
            answer = await opening
            if answer.allowed:
                self._hold = answer.hold
                await self._released("CancelledError")
        except ZaazError as error:
            _log.warning("a hold may stand until its time runs out: %s", error)

    async def _settle_after(self, error: BaseException) -> None:
        """Settle after an exception, which is what the caller is to see."""
        try:
            await self._settle(error)
        except ZaazError as failure:
            told = f"hold {self.hold.id} could not be settled and ends by its policy: {failure}"
            _log.warning("%s", told)
            error.add_note(told)

    async def _settle(self, error: BaseException | None) -> None:
        assert self._keeper is not None
        await self._keeper.stop()
        try:
            await self._end(error)
        except asyncio.CancelledError:
            _log.warning("no time to settle hold %s: it ends by its policy", self.hold.id)
            raise

    async def _end(self, error: BaseException | None) -> None:
        if self._release_reason is not None:
            await self._released(self._release_reason)
        elif self._reported is not None:
            self.charge = await self._billed(self._reported)
        elif error is not None:
            await self._released(type(error).__name__)
        elif not self._has_tokens:
            self.charge = await self._billed(HoldUsage())
        else:
            await self._released("usage not reported")
            raise UsageNotReported(
                f"nothing was reported for hold {self.hold.id}: call report() before the end,"
                " or release()"
            )

    @property
    def _has_tokens(self) -> bool:
        asked = self._request
        return bool(asked.ai_model or asked.max_input_tokens or asked.max_output_tokens)

    async def _released(self, reason: str) -> None:
        request = ReleaseHoldRequest(
            request_id=uuid4().hex, hold_id=self.hold.id, reason=reason[:MAX_REASON_CHARACTERS]
        )
        limit_seconds = self._settings.settle_timeout_seconds
        # One that has ended, as by its time, holds nothing any more.
        with contextlib.suppress(HoldEnded):
            await retry_within(self._process.ReleaseHold, request, limit_seconds)

    async def _billed(self, usage: HoldUsage) -> Charge:
        request = CaptureHoldRequest(
            request_id=uuid4().hex,
            hold_id=self.hold.id,
            usage=usage,
            usage_key=self._usage_key,
            labels=dict(self._request.labels),
        )
        limit_seconds = self._settings.settle_timeout_seconds
        try:
            answer = await retry_within(self._process.CaptureHold, request, limit_seconds)
        except HoldEnded:
            return await self._billed_late(usage)
        return _captured(answer)

    async def _billed_late(self, usage: HoldUsage) -> Charge:
        """Bill a use whose hold has run out, as usage that names it.

        HoldEnded where the hold's policy has billed it already.
        """
        event = UsageEvent(
            usage_key=self._usage_key or f"hold:{self.hold.id}",
            user_id=self._request.user_id,
            feature_endpoint=self._request.feature_endpoint,
            ai_model=self._request.ai_model,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            hold_id=self.hold.id,
            labels=dict(self._request.labels),
        )
        event.occurred_time.GetCurrentTime()
        limit_seconds = self._settings.settle_timeout_seconds
        request = RecordUsageRequest(request_id=uuid4().hex, events=[event])
        answer = await retry_within(self._usage.RecordUsage, request, limit_seconds)
        (result,) = answer.results
        if result.HasField("error"):
            raise from_status(result.error.error)
        return _recorded(result.receipt)


def _captured(answer: CaptureHoldResponse) -> Charge:
    entry = answer.transaction
    return Charge(
        entry.id,
        entry.credits_micros + entry.shortfall_micros,
        entry.shortfall_micros,
        entry.balance_after_micros,
    )


def _recorded(receipt: UsageReceipt) -> Charge:
    return Charge(
        receipt.credits_transaction_id,
        receipt.credits_micros,
        receipt.shortfall_micros,
        receipt.balance_after_micros,
        late=True,
    )
