"""Holds for the services on top: who may touch one, and what its use is called."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from bson import ObjectId

from server.kernel.clock import Clock
from server.kernel.ids import derived_id, new_id
from server.ledger.committer import Committer
from server.ledger.draft import HoldRow
from server.ledger.expiry import expire
from server.ledger.jobs import OperationJob, Posted, Request
from server.ledger.model import Cause, DisconnectPolicy, Hold, Priced, Usage, Wallet
from server.ledger.operations import CaptureHold, ExtendHold, Operation, PlaceHold, ReleaseHold
from server.ledger.reader import LedgerReader
from server.ledger.refusals import hold_not_found, wallet_not_found
from server.ledger.service import Caller, Details
from server.ledger.settlement import capture_id, capture_key

MAX_KNOWN_HOLDS = 50_000
"""Holds that this process placed lately: their end need not look them up."""


class HoldTerms(NamedTuple):
    """What a hold is asked for. `bound` is what it may come to at prices of `priced_ms`."""

    user_id: str
    bound: Priced
    priced_ms: int
    ttl_ms: int
    policy: int = DisconnectPolicy.RELEASE
    feature_endpoint: str = ""
    ai_model: str = ""
    labels: Mapping[str, str] | None = None


class KnownHold(NamedTuple):
    """What never changes about a hold."""

    user_id: str
    client_id: str
    priced_ms: int
    feature_endpoint: str
    ai_model: str


class HoldLedger:
    """Every method returns once its effect is durable, or raises DomainError without one."""

    def __init__(self, committer: Committer, reader: LedgerReader, clock: Clock) -> None:
        self._committer = committer
        self._reader = reader
        self._clock = clock
        self._known: dict[ObjectId, KnownHold] = {}

    async def wallet(self, user_id: str) -> Wallet:
        """The wallet as of now, from the committer's cache. WALLET_NOT_FOUND."""
        wallet = await self._committer.peek(user_id)
        if wallet is None:
            raise wallet_not_found(user_id)
        return expire(wallet, self._clock()).wallet

    async def place(self, caller: Caller, terms: HoldTerms) -> Posted:
        """FundsRefusedError, TOO_MANY_HOLDS, WALLET_NOT_FOUND."""
        hold = Hold(
            new_id(),
            caller.client_id,
            terms.bound,
            expires_ms=0,
            priced_ms=terms.priced_ms,
            created_ms=0,
            policy=terms.policy,
            feature_endpoint=terms.feature_endpoint,
            ai_model=terms.ai_model,
            labels=terms.labels or None,
        )
        operation = PlaceHold(terms.user_id, hold, terms.ttl_ms, self._cause(caller))
        # Prices and their moment are not what the caller asked for: a retry has others.
        payload = (
            "hold",
            terms.user_id,
            terms.bound.tokens,
            terms.ttl_ms,
            terms.policy,
            terms.feature_endpoint,
            terms.ai_model,
            terms.labels or None,
        )
        posted = await self._run(caller, operation, payload)
        if posted.hold is not None:
            self._remember(terms.user_id, posted.hold.hold)
        return posted

    async def find(self, hold_id: ObjectId, client_id: str | None) -> KnownHold:
        """The hold of a client (None: of any). HOLD_NOT_FOUND, for those of others too."""
        known = self._known.get(hold_id)
        if known is None:
            row = await self._reader.hold(hold_id)
            known = self._remember(str(row.profile.user_id), row.change.hold)
        if client_id is not None and known.client_id != client_id:
            raise hold_not_found(hold_id)
        return known

    async def row(self, hold_id: ObjectId) -> HoldRow:
        """The hold as it is stored. HOLD_NOT_FOUND."""
        return await self._reader.hold(hold_id)

    async def extend(
        self,
        caller: Caller,
        hold_id: ObjectId,
        user_id: str,
        *,
        ttl_ms: int | None,
        bound: Priced | None,
        reported: Priced | None,
    ) -> Posted:
        """HOLD_ENDED, FundsRefusedError."""
        cause = self._cause(caller)
        operation = ExtendHold(new_id(), user_id, hold_id, ttl_ms, bound, reported, cause)
        payload = (
            "extend",
            str(hold_id),
            ttl_ms,
            None if bound is None else bound.tokens,
            None if reported is None else reported.tokens,
        )
        return await self._run(caller, operation, payload)

    async def capture(
        self, caller: Caller, hold_id: ObjectId, user_id: str, usage: Usage, priced: Priced
    ) -> Posted:
        """HOLD_ENDED, USAGE_KEY_REUSED. A usage without a key gets the hold's own."""
        entry_id = capture_id(hold_id)
        if usage.usage_key:
            entry_id = derived_id(caller.client_id, user_id, usage.usage_key)
        asked = usage._replace(occurred_ms=0)
        if not usage.usage_key:
            usage = usage._replace(usage_key=capture_key(hold_id))
        cause = self._cause(caller)
        operation = CaptureHold(entry_id, user_id, hold_id, usage, priced, cause)
        return await self._run(caller, operation, ("capture", str(hold_id), *asked))

    async def release(self, caller: Caller, hold_id: ObjectId, user_id: str, reason: str) -> Posted:
        """HOLD_ENDED."""
        cause = self._cause(caller, Details(reason))
        operation = ReleaseHold(capture_id(hold_id), user_id, hold_id, cause)
        return await self._run(caller, operation, ("release", str(hold_id), reason))

    async def _run(self, caller: Caller, operation: Operation, payload: Sequence[object]) -> Posted:
        request = Request.of(*caller, payload)
        return await self._committer.submit(OperationJob(operation, request))

    def _remember(self, user_id: str, hold: Hold) -> KnownHold:
        known = KnownHold(
            user_id, hold.client_id, hold.priced_ms, hold.feature_endpoint, hold.ai_model
        )
        self._known[hold.id] = known
        for old in list(islice(self._known, max(0, len(self._known) - MAX_KNOWN_HOLDS))):
            del self._known[old]
        return known

    def _cause(self, caller: Caller, details: Details = Details()) -> Cause:  # noqa: B008
        return Cause(
            caller.client_id, caller.request_id, details.reason, details.labels, self._clock()
        )
