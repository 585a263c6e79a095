"""zaaz.subscriptions.v1.SubscriptionService: between the contract's messages and the ledger."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bson import ObjectId
from zaaz.ledger.v1.credits_transaction_pb2 import CreditsTransaction
from zaaz.ledger.v1.wallet_pb2 import Wallet
from zaaz.subscriptions.v1 import subscription_service_pb2 as pb

from server.kernel.clock import Clock
from server.kernel.errors import DomainError
from server.kernel.ids import parse_id
from server.kernel.principal import current_principal
from server.ledger.jobs import Posted
from server.ledger.messages import transaction_message, wallet_message
from server.ledger.package_service import PackageLedger
from server.ledger.service import Caller, Ledger
from server.resources.binder import bind
from server.resources.engine import Resources
from server.subscriptions.ports import Coupons, Packages
from server.subscriptions.resources import PACKAGE_TRANSACTIONS


class SubscriptionServicer:
    """Thin: the catalog says what a package gives, and the ledger gives it."""

    def __init__(
        self,
        ledger: Ledger,
        packages: PackageLedger,
        sold: Packages,
        coupons: Coupons,
        resources: Resources,
        clock: Clock,
    ) -> None:
        service = pb.DESCRIPTOR.services_by_name["SubscriptionService"]
        bind(self, service, resources, PACKAGE_TRANSACTIONS)
        self._ledger = ledger
        self._packages = packages
        self._sold = sold
        self._coupons = coupons
        self._clock = clock

    async def OnboardUser(
        self, request: pb.OnboardUserRequest, context: Any
    ) -> pb.OnboardUserResponse:
        """The initial package, once for ever."""
        caller, user_id = _caller(request.request_id), request.user_id
        # Under no request: what is remembered under it is what was given.
        wallet = await self._ledger.open_wallet(
            Caller(caller.client_id, ""), user_id, request.email
        )
        asked = ("onboard", user_id)

        async def give() -> Posted:
            if wallet.profile.initial_package_given:
                earlier = await self._packages.earlier(caller, asked)
                return earlier or Posted(None, wallet)
            terms = await self._sold.initial()
            return await self._packages.give(
                caller, user_id, terms, asked, "onboarding", is_onboarding=True
            )

        posted = await self._once(caller, asked, give)
        return pb.OnboardUserResponse(
            given=posted.entry is not None,
            transaction=_transaction(posted),
            wallet=self._wallet(posted),
        )

    async def ActivatePackage(
        self, request: pb.ActivatePackageRequest, context: Any
    ) -> pb.ActivatePackageResponse:
        """A package that was paid for."""
        caller, user_id = _caller(request.request_id), request.user_id
        asked = (
            *("activate", user_id, request.package_id, request.plan_id),
            *(request.payment_transaction_id, request.coupon_code, request.package_history_id),
        )

        async def sell() -> Posted:
            package_id, plan_id = _ids(request)
            if request.package_history_id:
                history_id = parse_id("package_history_id", request.package_history_id)
                terms = await self._sold.under(history_id, package_id, plan_id)
            else:
                terms = await self._sold.present(package_id, plan_id)
            payment = request.payment_transaction_id
            payment_id = parse_id("payment_transaction_id", payment) if payment else None
            coupon = None
            if request.coupon_code:
                links = {**caller._asdict(), "payment_transaction_id": payment_id}
                coupon = await self._coupons.discount_rider(
                    request.coupon_code, user_id, package_id, self._clock(), links
                )
            return await self._packages.sell(
                caller, user_id, terms, asked, payment_id=payment_id, coupon=coupon
            )

        posted = await self._once(caller, asked, sell)
        return pb.ActivatePackageResponse(
            transaction=_transaction(posted), wallet=self._wallet(posted)
        )

    async def AssignPackage(
        self, request: pb.AssignPackageRequest, context: Any
    ) -> pb.AssignPackageResponse:
        """A package by an operator."""
        caller, user_id = _caller(request.request_id), request.user_id
        asked = ("assign", user_id, request.package_id, request.plan_id, request.reason)

        async def give() -> Posted:
            terms = await self._sold.assignable(*_ids(request))
            return await self._packages.give(caller, user_id, terms, asked, request.reason)

        posted = await self._once(caller, asked, give)
        return pb.AssignPackageResponse(
            transaction=_transaction(posted), wallet=self._wallet(posted)
        )

    async def SchedulePackage(
        self, request: pb.SchedulePackageRequest, context: Any
    ) -> pb.SchedulePackageResponse:
        """Another package when the period ends."""
        caller, user_id = _caller(request.request_id), request.user_id
        asked = ("schedule", user_id, request.package_id, request.plan_id)

        async def schedule() -> Posted:
            terms = await self._sold.present(*_ids(request))
            return await self._packages.schedule(caller, user_id, terms, asked)

        posted = await self._once(caller, asked, schedule)
        return pb.SchedulePackageResponse(wallet=self._wallet(posted))

    async def CancelSubscription(
        self, request: pb.CancelSubscriptionRequest, context: Any
    ) -> pb.CancelSubscriptionResponse:
        """No package any more."""
        caller = _caller(request.request_id)
        posted = await self._packages.end(
            caller, request.user_id, request.reason, at_once=request.at_once
        )
        return pb.CancelSubscriptionResponse(wallet=self._wallet(posted))

    async def _once(
        self, caller: Caller, asked: Sequence[object], work: Callable[[], Awaitable[Posted]]
    ) -> Posted:
        """What `work` comes to, or came to under this request, whatever refuses it by now."""
        try:
            return await work()
        except DomainError:
            earlier = await self._packages.earlier(caller, asked)
            if earlier is None:
                raise
            return earlier

    def _wallet(self, posted: Posted) -> Wallet:
        return wallet_message(posted.wallet, self._clock())


def _transaction(posted: Posted) -> CreditsTransaction | None:
    return None if posted.entry is None else transaction_message(posted.entry)


def _ids(request: Any) -> tuple[ObjectId, ObjectId]:
    return parse_id("package_id", request.package_id), parse_id("plan_id", request.plan_id)


def _caller(request_id: str) -> Caller:
    return Caller(current_principal().client_id, request_id)
