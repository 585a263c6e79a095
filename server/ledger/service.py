"""The ledger's use cases: all that moves credits, for the services on top of it."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from bson import ObjectId

from server.kernel.clock import Clock
from server.kernel.ids import derived_id, new_id
from server.ledger.committer import Committer
from server.ledger.frames import FrameJob, FramePosition, FrameResult, UsageItem
from server.ledger.jobs import OperationJob, Posted, Request
from server.ledger.model import NEVER_MS, Cause, IncreaseSource, Wallet, Writer
from server.ledger.operations import (
    AddGrant,
    ChangeSettings,
    Consume,
    OpenWallet,
    Operation,
    Reverse,
    Tidy,
)
from server.ledger.refusals import transaction_not_found
from server.ledger.riders import Rider
from server.ledger.store import LedgerStore


class Caller(NamedTuple):
    """Who asks, and the id under which the answer can be had again ("": under none)."""

    client_id: str
    request_id: str


class Details(NamedTuple):
    """What a caller may say about a movement."""

    reason: str = ""
    labels: dict[str, str] | None = None


NO_DETAILS = Details()


class UsedEndpoint(NamedTuple):
    """What credits are taken for. Replays are told apart by its value."""

    value: str
    id: ObjectId


class Ledger:
    """Every method returns once its effect is durable, or raises DomainError without one.

    All may raise REQUEST_ID_REUSED, CONTENTION, OVERLOADED and
    DEPENDENCY_UNAVAILABLE, and all but `open_wallet` WALLET_NOT_FOUND.
    """

    def __init__(self, committer: Committer, store: LedgerStore, clock: Clock) -> None:
        self._committer = committer
        self._store = store
        self._clock = clock

    async def open_wallet(self, caller: Caller, user_id: str, email: str) -> Wallet:
        """Makes the user's wallet, or returns the one there is."""
        operation = OpenWallet(user_id, email.lower())
        return (await self._run(caller, operation, ("open", user_id, email))).wallet

    async def change_settings(self, caller: Caller, change: ChangeSettings) -> Wallet:
        """ETAG_MISMATCH."""
        return (await self._run(caller, change, ("settings", *change))).wallet

    async def tidy(self, user_id: str) -> None:
        """Writes what has become due of a wallet by time alone; nothing where nothing has."""
        await self._committer.submit(OperationJob(Tidy(user_id), None))

    async def add_grant(
        self,
        caller: Caller,
        user_id: str,
        credits_micros: int,
        source: int,
        *,
        priority: int = 0,
        expires_ms: int = NEVER_MS,
        details: Details = NO_DETAILS,
    ) -> Posted:
        """FIELD_INVALID, AMOUNT_OUT_OF_RANGE, TOO_MANY_GRANTS."""
        operation = AddGrant(
            new_id(),
            user_id,
            credits_micros,
            source,
            priority,
            expires_ms,
            self._cause(caller, details),
        )
        payload = ("grant", user_id, credits_micros, source, priority, expires_ms, *details)
        return await self._run(caller, operation, payload)

    async def redeem(
        self,
        caller: Caller,
        user_id: str,
        credits_micros: int,
        expires_ms: int,
        rider: Rider,
        asked: Sequence[object],
        details: Details = NO_DETAILS,
    ) -> Posted:
        """A coupon's credits, with what its use changes. What the rider refuses.

        AMOUNT_OUT_OF_RANGE, TOO_MANY_GRANTS. `asked` is what a replay has to say again.
        """
        cause = self._cause(caller, details)
        source = IncreaseSource.COUPON
        operation = AddGrant(new_id(), user_id, credits_micros, source, 0, expires_ms, cause)
        return await self._run(caller, operation, asked, rider)

    async def earlier(self, caller: Caller, asked: Sequence[object]) -> Posted | None:
        """What a request came to, if it did before. REQUEST_ID_REUSED."""
        return await self._committer.earlier(Request.of(*caller, asked))

    async def consume(
        self,
        caller: Caller,
        user_id: str,
        credits_micros: int,
        details: Details = NO_DETAILS,
        source: UsedEndpoint | None = None,
        *,
        bypass_expiry: bool = False,
    ) -> Posted:
        """INSUFFICIENT_CREDITS, WALLET_EXPIRED unless that is to be passed by."""
        cause = self._cause(caller, details)
        if source is not None:
            cause = cause._replace(decrease_source=source.id)
        operation = Consume(new_id(), user_id, credits_micros, cause, bypass_expiry)
        endpoint = source and source.value
        payload = _consumption(user_id, credits_micros, details, endpoint, bypass_expiry)
        return await self._run(caller, operation, payload)

    async def consumed_before(
        self,
        caller: Caller,
        user_id: str,
        credits_micros: int,
        details: Details,
        endpoint: str,
        *,
        bypass_expiry: bool = False,
    ) -> Posted | None:
        """What `consume` came to if it did before, for an endpoint that may be gone since."""
        payload = _consumption(user_id, credits_micros, details, endpoint, bypass_expiry)
        return await self.earlier(caller, payload)

    async def reverse(self, caller: Caller, entry_id: ObjectId, reason: str) -> Posted:
        """TRANSACTION_NOT_FOUND, ALREADY_REVERSED, NOT_REVERSIBLE, INSUFFICIENT_CREDITS.

        TOO_MANY_GRANTS.
        """
        original = (await self._store.entries([entry_id])).get(entry_id.binary)
        if original is None:
            raise transaction_not_found(entry_id)
        made = await self._store.entries(move.grant_id for move in original.movements)
        cause = self._cause(caller, Details(reason))._replace(reverses_id=entry_id)
        operation = Reverse(
            # One id for whatever reverses this entry: the second one is a duplicate key.
            derived_id("reversal", str(entry_id)),
            str(original.profile.user_id),
            original,
            tuple(entry.grant for entry in made.values() if entry.grant is not None),
            cause,
        )
        return await self._run(caller, operation, ("reverse", str(entry_id), reason))

    def settle(
        self,
        items: Sequence[UsageItem],
        position: FramePosition | None = None,
        request: Request | None = None,
        unbilled: int = 0,
    ) -> asyncio.Future[FrameResult]:
        """Bills the events that are not billed yet. Frames keep the order of their calls.

        `unbilled`: how many events follow the items in the writer's sequence that are not
        the ledger's. The result raises OFFSET_OUT_OF_RANGE, WRITER_FENCED.
        """
        return self._committer.submit(FrameJob(items, position, request, unbilled))

    def has_room(self, entries: int) -> bool:
        """Whether a frame of so many events would be taken now rather than refused."""
        return self._committer.queue.has_room(entries)

    async def wait_for_room(self, entries: int) -> None:
        """Returns once it would."""
        await self._committer.queue.wait_for_room(entries)

    async def open_writer(self, client_id: str, writer_id: str) -> Writer:
        """Takes a usage stream's writer over; whoever held it is fenced."""
        return await self._committer.open_writer(f"{client_id}\0{writer_id}")

    async def _run(
        self,
        caller: Caller,
        operation: Operation,
        payload: Sequence[object],
        rider: Rider | None = None,
    ) -> Posted:
        request = Request.of(*caller, payload) if caller.request_id else None
        return await self._committer.submit(OperationJob(operation, request, rider))

    def _cause(self, caller: Caller, details: Details) -> Cause:
        labels = details.labels or None
        return Cause(caller.client_id, caller.request_id, details.reason, labels, self._clock())


def _consumption(
    user_id: str, credits_micros: int, details: Details, endpoint: str | None, bypass_expiry: bool
) -> Sequence[object]:
    """What a replay has to say again; a bypass only where it was asked for."""
    said: tuple[object, ...] = ("consume", user_id, credits_micros, *details)
    if endpoint is not None:
        said = (*said, endpoint)
    return (*said, True) if bypass_expiry else said
