"""Holds for the services on top: who may touch one, and what its use is called."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from bson import ObjectId

from server.kernel.clock import Clock
from server.kernel.errors import DomainError, Reason
from server.kernel.ids import derived_id, new_id
from server.ledger.committer import Committer
from server.ledger.draft import HoldRow
from server.ledger.expiry import expire
from server.ledger.jobs import OperationJob, Posted, Request
from server.ledger.model import (
    Cause,
    DisconnectPolicy,
    Hold,
    HoldState,
    PinnedPrices,
    Priced,
    Profile,
    Tokens,
    Wallet,
)
from server.ledger.operations import CaptureHold, ExtendHold, Operation, PlaceHold, ReleaseHold
from server.ledger.reader import LedgerReader
from server.ledger.refusals import hold_ended, hold_not_found, wallet_not_found
from server.ledger.service import NO_DETAILS, Caller, Details
from server.ledger.settlement import capture_id

MAX_KNOWN_HOLDS = 50_000
"""Holds that this process placed lately: their end need not look them up."""


class HoldTerms(NamedTuple):
    """What a hold is asked for: `tokens` are the most that it may come to."""

    user_id: str
    tokens: Tokens
    ttl_ms: int
    policy: int = DisconnectPolicy.RELEASE
    feature_endpoint: str = ""
    ai_model: str = ""
    words: int = 0
    labels: Mapping[str, str] | None = None
    bypass_expiry: bool = False


class KnownHold(NamedTuple):
    """What never changes about a hold."""

    user_id: str
    client_id: str
    prices: PinnedPrices
    feature_endpoint: str
    ai_model: str


class HoldLedger:
    """Every method returns once its effect is durable, or raises DomainError without one."""

    def __init__(self, committer: Committer, reader: LedgerReader, clock: Clock) -> None:
        self._committer = committer
        self._reader = reader
        self._clock = clock
        self._known: dict[ObjectId, KnownHold] = {}

    async def recalled(self, user_id: str) -> Wallet:
        """As of now the wallet that is in memory, however old, for who goes on to write it.

        WALLET_NOT_FOUND.
        """
        wallet = await self._committer.recall(user_id)
        if wallet is None:
            raise wallet_not_found(user_id)
        return expire(wallet, self._clock()).wallet

    async def wallet(self, user_id: str, *, fresh: bool = False) -> Wallet:
        """The wallet as of now, from the committer's cache. WALLET_NOT_FOUND.

        What other processes write is seen within PEEK_SECONDS, with `fresh` at once.
        """
        wallet = await self._committer.peek(user_id, fresh=fresh)
        if wallet is None:
            raise wallet_not_found(user_id)
        return expire(wallet, self._clock()).wallet

    async def place(
        self,
        caller: Caller,
        terms: HoldTerms,
        bound: Priced,
        prices: PinnedPrices,
        priced_ms: int,
        *,
        asked_of: Profile | None = None,
    ) -> Posted:
        """FundsRefusedError, WALLET_NOT_FOUND; PackageChangedError where `asked_of` is outdated.

        `bound` is what the tokens come to at `prices`, those of `priced_ms`.
        """
        hold = Hold(
            new_id(),
            caller.client_id,
            bound,
            prices,
            expires_ms=0,
            priced_ms=priced_ms,
            created_ms=0,
            policy=terms.policy,
            feature_endpoint=terms.feature_endpoint,
            ai_model=terms.ai_model,
            labels=terms.labels or None,
        )
        operation = PlaceHold(
            terms.user_id, hold, terms.ttl_ms, self.cause(caller), terms.bypass_expiry, asked_of
        )
        posted = await self._run(caller, operation, _asked(terms))
        if posted.hold is not None:
            self._remember(terms.user_id, posted.hold.hold)
        return posted

    async def placed_before(self, caller: Caller, terms: HoldTerms) -> Posted | None:
        """What `place` came to if it did before. REQUEST_ID_REUSED."""
        return await self._committer.earlier(Request.of(*caller, _asked(terms)))

    async def find(self, hold_id: ObjectId, client_id: str | None) -> KnownHold:
        """The hold of a client (None: of any). HOLD_NOT_FOUND, for those of others too."""
        known = self._known.get(hold_id)
        if known is None:
            row = await self._reader.hold(hold_id)
            known = self._remember(str(row.profile.user_id), row.change.hold)
        if client_id is not None and known.client_id != client_id:
            raise hold_not_found(hold_id)
        return known

    async def of_client(self, client_id: str, hold_ids: Iterable[str]) -> dict[str, KnownHold]:
        """Those of the holds that are this client's, by their ids."""
        ids = {ObjectId(hold_id) for hold_id in hold_ids}
        # Taken out first: to remember others may push them out.
        found = {hold_id: self._known[hold_id] for hold_id in ids if hold_id in self._known}
        for row in await self._reader.holds_by_id(ids - found.keys()):
            hold = row.change.hold
            found[hold.id] = self._remember(str(row.profile.user_id), hold)
        return {str(i): known for i, known in found.items() if known.client_id == client_id}

    async def as_of_now(self, row: HoldRow) -> HoldRow:
        """The row of a hold whose time may be over, which has no entry yet."""
        now_ms = self._clock()
        if row.change.state != HoldState.ACTIVE or row.change.hold.expires_ms > now_ms:
            return row
        wallet = await self._reader.stored_wallet(str(row.profile.user_id))
        changes = {change.hold.id: change for change in expire(wallet, now_ms).holds}
        change = changes.get(row.change.hold.id)
        # Ended between the two reads: then its own row says how.
        return (
            await self._reader.hold(row.change.hold.id)
            if change is None
            else HoldRow(row.profile, change)
        )

    async def extend(
        self, caller: Caller, operation: ExtendHold, asked: Sequence[object]
    ) -> Posted:
        """HOLD_ENDED, FundsRefusedError. `asked` is what the caller's request says."""
        return await self._run(caller, operation, ("extend", *asked))

    async def capture(
        self,
        caller: Caller,
        hold_id: ObjectId,
        user_id: str,
        priced: Priced | None,
        usage_key: str,
        labels: Mapping[str, str],
    ) -> Posted:
        """HOLD_ENDED, USAGE_KEY_REUSED."""
        entry_id = capture_id(hold_id)
        if usage_key:
            entry_id = derived_id(caller.client_id, user_id, usage_key)
        cause = self.cause(caller, Details(labels=dict(labels)))
        operation = CaptureHold(entry_id, user_id, hold_id, priced, cause, usage_key=usage_key)
        tokens = None if priced is None else (*priced.tokens,)
        asked = ("capture", str(hold_id), tokens, usage_key, cause.labels)
        return await self._run(caller, operation, asked)

    async def release(self, caller: Caller, hold_id: ObjectId, user_id: str, reason: str) -> Posted:
        """HOLD_ENDED."""
        cause = self.cause(caller, Details(reason))
        operation = ReleaseHold(capture_id(hold_id), user_id, hold_id, cause)
        return await self._run(caller, operation, ("release", str(hold_id), reason))

    async def _run(self, caller: Caller, operation: Operation, payload: Sequence[object]) -> Posted:
        request = Request.of(*caller, payload)
        try:
            return await self._committer.submit(OperationJob(operation, request))
        except DomainError as error:
            if error.reason is Reason.HOLD_ENDED:
                raise await self._ended(ObjectId(error.metadata["hold_id"])) from None
            raise

    async def _ended(self, hold_id: ObjectId) -> DomainError:
        """HOLD_ENDED with what became of the hold."""
        row = await self.as_of_now(await self._reader.hold(hold_id))
        return hold_ended(hold_id, HoldState(row.change.state).name.lower())

    def _remember(self, user_id: str, hold: Hold) -> KnownHold:
        known = KnownHold(
            user_id, hold.client_id, hold.prices, hold.feature_endpoint, hold.ai_model
        )
        self._known[hold.id] = known
        for old in list(islice(self._known, max(0, len(self._known) - MAX_KNOWN_HOLDS))):
            del self._known[old]
        return known

    def cause(self, caller: Caller, details: Details = NO_DETAILS) -> Cause:
        """Why an entry of this caller is there."""
        labels = details.labels or None
        return Cause(caller.client_id, caller.request_id, details.reason, labels, self._clock())


def _asked(terms: HoldTerms) -> Sequence[object]:
    """What the caller asked for. Prices and their moment are not: a retry has others."""
    asked = (
        "hold",
        terms.user_id,
        (*terms.tokens,),
        terms.words,
        terms.ttl_ms,
        terms.policy,
        terms.feature_endpoint,
        terms.ai_model,
        terms.labels or None,
    )
    # Left out where it is not asked for: that is how earlier requests were kept.
    return (*asked, True) if terms.bypass_expiry else asked
