"""A server with packages that are made through the contract, and users who have them."""

from typing import Any, NamedTuple

from zaaz.catalog.v1 import package_pb2, package_plan_pb2, plan_pb2
from zaaz.ledger.v1 import wallet_pb2
from zaaz.subscriptions.v1 import package_transaction_pb2, subscription_service_pb2
from zaaz.subscriptions.v1.subscription_service_pb2_grpc import SubscriptionServiceStub
from zaaz.wallet.v1 import wallet_service_pb2

from server.kernel.clock import DAY_MS
from tests.serving import ManualClock, Served, new_key, new_user

CREDITS, SUBSCRIPTION = package_pb2.PACKAGE_TYPE_CREDITS, package_pb2.PACKAGE_TYPE_SUBSCRIPTION
FREE, PAID = wallet_pb2.WALLET_TYPE_FREE, wallet_pb2.WALLET_TYPE_PAID
MONTH_DAYS, MONTH_MS = 30, 30 * DAY_MS
FIVE_CREDITS = 5_000_000
pb = subscription_service_pb2
Kind = package_transaction_pb2.PackageTransactionKind


class Sold(NamedTuple):
    """A package with its one price."""

    package_id: str
    plan_id: str
    package_plan_id: str


class Market:
    def __init__(self, served: Served, clock: ManualClock) -> None:
        self.served = served
        self.clock = clock
        self.subscriptions: Any = SubscriptionServiceStub(served.channel)

    async def package(
        self,
        kind: package_pb2.PackageType.ValueType = SUBSCRIPTION,
        *,
        usd_micros: int = 10_000_000,
        credits_micros: int = FIVE_CREDITS,
        days: int = MONTH_DAYS,
        **fields: Any,
    ) -> Sold:
        """A new package that is sold for one plan."""
        catalog, value = self.served.catalog, f"p-{new_key()}"
        package = package_pb2.Package(name=value, value=value, type=kind, is_active=True, **fields)
        made = await catalog.CreatePackage(package_pb2.CreatePackageRequest(package=package))
        return await self.price(made.package.id, usd_micros, credits_micros, days)

    async def price(self, package_id: str, usd_micros: int, credits_micros: int, days: int) -> Sold:
        """The package, for one plan more."""
        catalog = self.served.catalog
        plan = plan_pb2.Plan(name=new_key(), duration_days=days, is_active=True)
        plan_id = (await catalog.CreatePlan(plan_pb2.CreatePlanRequest(plan=plan))).plan.id
        price = package_plan_pb2.PackagePlan(
            package_id=package_id,
            plan_id=plan_id,
            price=package_plan_pb2.Price(usd_micros=usd_micros),
            credits_micros=credits_micros,
            is_active=True,
        )
        request = package_plan_pb2.CreatePackagePlanRequest(package_plan=price)
        made = await catalog.CreatePackagePlan(request)
        return Sold(package_id, plan_id, made.package_plan.id)

    async def history_id(self, sold: Sold) -> str:
        """The snapshot that a package is sold under."""
        request = package_pb2.GetPackageRequest(id=sold.package_id)
        return str((await self.served.catalog.GetPackage(request)).package.history_id)

    async def activate(self, user_id: str, sold: Sold, request_id: str = "", **more: Any) -> Any:
        return await self.subscriptions.ActivatePackage(
            pb.ActivatePackageRequest(**_asked(user_id, sold, request_id), **more)
        )

    async def assign(self, user_id: str, sold: Sold, request_id: str = "", **more: Any) -> Any:
        return await self.subscriptions.AssignPackage(
            pb.AssignPackageRequest(**_asked(user_id, sold, request_id), **more)
        )

    async def schedule(self, user_id: str, sold: Sold, request_id: str = "") -> Any:
        return await self.subscriptions.SchedulePackage(
            pb.SchedulePackageRequest(**_asked(user_id, sold, request_id))
        )

    async def cancel(self, user_id: str, **fields: Any) -> Any:
        fields = {"request_id": new_key(), **fields}
        return await self.subscriptions.CancelSubscription(
            pb.CancelSubscriptionRequest(user_id=user_id, **fields)
        )

    async def onboard(self, user_id: str = "", request_id: str = "", email: str = "") -> Any:
        return await self.subscriptions.OnboardUser(
            pb.OnboardUserRequest(
                request_id=request_id or new_key(), user_id=user_id or new_user(), email=email
            )
        )

    async def events(self, user_id: str) -> list[package_transaction_pb2.PackageTransaction]:
        """What became of a user's packages, oldest first."""
        answer = await self.subscriptions.ListPackageTransactions(
            package_transaction_pb2.ListPackageTransactionsRequest(
                page_size=1_000, filter=f"user_id = {user_id}", order_by="created_time, sequence"
            )
        )
        return list(answer.package_transactions)

    async def kinds(self, user_id: str) -> list[str]:
        names = [Kind.Name(row.kind) for row in await self.events(user_id)]
        return [name.removeprefix("PACKAGE_TRANSACTION_KIND_") for name in names]

    async def wallet(self, user_id: str) -> wallet_pb2.Wallet:
        request = wallet_service_pb2.GetWalletRequest(user_id=user_id)
        answer: wallet_service_pb2.GetWalletResponse = await self.served.wallets.GetWallet(request)
        return answer.wallet


def _asked(user_id: str, sold: Sold, request_id: str) -> dict[str, str]:
    return {
        "request_id": request_id or new_key(),
        "user_id": user_id,
        "package_id": sold.package_id,
        "plan_id": sold.plan_id,
    }
