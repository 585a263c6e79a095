"""Packages for the services on top."""

from collections.abc import Sequence

from bson import ObjectId

from server.kernel.clock import Clock
from server.kernel.ids import derived_id, new_id
from server.ledger.committer import Committer
from server.ledger.jobs import OperationJob, Posted, Request
from server.ledger.model import Cause, IncreaseSource, Terms
from server.ledger.operations import EndPackage, Operation, SchedulePackage, StartPackage
from server.ledger.riders import Rider
from server.ledger.service import Caller


class PackageLedger:
    """Every method returns once its effect is durable, or raises DomainError without one.

    `asked` is what the caller's request says: a replay has to say it again, whatever the
    package's terms are by then. All may raise WALLET_NOT_FOUND, REQUEST_ID_REUSED, CONTENTION,
    OVERLOADED and DEPENDENCY_UNAVAILABLE.
    """

    def __init__(self, committer: Committer, clock: Clock) -> None:
        self._committer = committer
        self._clock = clock

    async def earlier(self, caller: Caller, asked: Sequence[object]) -> Posted | None:
        """What a request came to, if it did before. REQUEST_ID_REUSED."""
        return await self._committer.earlier(Request.of(*caller, asked))

    async def sell(
        self,
        caller: Caller,
        user_id: str,
        terms: Terms,
        asked: Sequence[object],
        *,
        payment_id: ObjectId | None = None,
        coupon: tuple[ObjectId, Rider] | None = None,
    ) -> Posted:
        """A package that was paid for. What `coupon` rides with it refuses.

        PAYMENT_ALREADY_USED, FIELD_INVALID, AMOUNT_OUT_OF_RANGE, TOO_MANY_GRANTS.
        """
        cause = self._cause(caller)._replace(payment_transaction_id=payment_id)
        coupon_id, rider = coupon or (None, None)
        # One id for what a payment brings: the second one is a duplicate key.
        entry_id = derived_id("#payment", str(payment_id)) if payment_id else new_id()
        operation = StartPackage(
            entry_id, user_id, terms, IncreaseSource.PAYMENT, cause, coupon_id=coupon_id
        )
        return await self._run(caller, operation, asked, rider)

    async def give(
        self,
        caller: Caller,
        user_id: str,
        terms: Terms,
        asked: Sequence[object],
        reason: str,
        *,
        is_onboarding: bool = False,
    ) -> Posted:
        """A package without a payment; at onboarding once for ever: then no entry.

        FIELD_INVALID, AMOUNT_OUT_OF_RANGE, TOO_MANY_GRANTS.
        """
        cause = self._cause(caller, reason)
        operation = StartPackage(
            new_id(), user_id, terms, IncreaseSource.BONUS, cause, is_onboarding
        )
        return await self._run(caller, operation, asked)

    async def schedule(
        self, caller: Caller, user_id: str, terms: Terms, asked: Sequence[object]
    ) -> Posted:
        """Another package when the present period ends. SUBSCRIPTION_NOT_FOUND."""
        operation = SchedulePackage(new_id(), user_id, terms, self._cause(caller))
        return await self._run(caller, operation, asked)

    async def end(self, caller: Caller, user_id: str, reason: str, *, at_once: bool) -> Posted:
        """No package any more, at the end of the period or now. SUBSCRIPTION_NOT_FOUND."""
        operation = EndPackage(new_id(), user_id, at_once, self._cause(caller, reason))
        return await self._run(caller, operation, ("end package", user_id, reason, at_once))

    async def _run(
        self,
        caller: Caller,
        operation: Operation,
        asked: Sequence[object],
        rider: Rider | None = None,
    ) -> Posted:
        request = Request.of(*caller, asked)
        return await self._committer.submit(OperationJob(operation, request, rider))

    def _cause(self, caller: Caller, reason: str = "") -> Cause:
        return Cause(caller.client_id, caller.request_id, reason, occurred_ms=self._clock())
