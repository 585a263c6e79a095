"""A shop of a test's own: packages as their snapshots have them, coupons through the contract.

Snapshots are written by hand, so that what is read of them stands by itself.
"""

from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from google.protobuf.field_mask_pb2 import FieldMask
from zaaz.catalog.v1 import coupon_pb2, offer_service_pb2
from zaaz.catalog.v1.offer_service_pb2_grpc import OfferServiceStub
from zaaz.common.v1.error_reason_pb2 import ErrorReason
from zaaz.subscriptions.v1 import subscription_service_pb2
from zaaz.subscriptions.v1.subscription_service_pb2_grpc import SubscriptionServiceStub

from server.kernel.clock import DAY_MS
from server.mongo.database import Database
from tests.serving import ManualClock, Served, new_key

USD, BDT = offer_service_pb2.CURRENCY_USD, offer_service_pb2.CURRENCY_BDT
PERCENTAGE, FIXED = coupon_pb2.DISCOUNT_TYPE_PERCENTAGE, coupon_pb2.DISCOUNT_TYPE_FIXED
CREDITS = coupon_pb2.DISCOUNT_TYPE_CREDITS
TEN_USD = 10_000_000
MONTH_MS = 30 * DAY_MS
NOW = datetime(2026, 1, 1, tzinfo=UTC)

Document = dict[str, Any]


def feature(name: str, **fields: Any) -> Document:
    row = {"_id": ObjectId(), "name": name, "value": name.lower(), "type": 1, "is_active": True}
    return {**row, "description": f"{name} it", "is_deleted": False, **fields}


def plan(name: str = "Monthly", **fields: Any) -> Document:
    row = {"_id": ObjectId(), "name": name, "duration_days": 30, "sequence": 1, "is_active": True}
    return {**row, "description": f"{name} billing", "is_deleted": False, **fields}


def price(plan_row: Document, usd_micros: int | None = TEN_USD, **fields: Any) -> Document:
    """A PackagePlan with its plan within."""
    row = {"_id": ObjectId(), "plan_id": plan_row["_id"], "plan": plan_row, "is_active": True}
    amounts = {} if usd_micros is None else {"usd_micros": usd_micros}
    values = {"price": amounts, "credits_micros": 5_000_000, "is_initial": False}
    return {**row, **values, "is_deleted": False, **fields}


class Shop:
    """A server with what it sells."""

    def __init__(self, served: Served, database: Database, clock: ManualClock) -> None:
        self.served = served
        self.clock = clock
        self.database = database
        self.offers: Any = OfferServiceStub(served.channel)
        self.subscriptions: Any = SubscriptionServiceStub(served.channel)

    async def put(self, *prices: Document, **fields: Any) -> Document:
        """A new package with these prices; its snapshot. `features` are among the fields."""
        snapshot = {
            "package_id": ObjectId(),
            "name": "Pro",
            "value": f"pro-{new_key()}",
            "type": 2,
            "sequence": 0,
            "is_initial": False,
            "is_active": True,
            "is_deleted": False,
            **fields,
            "plans": list(prices),
        }
        return await self.change(snapshot)

    async def change(self, snapshot: Document, **fields: Any) -> Document:
        """The package with these fields changed: a snapshot after it."""
        new = {**snapshot, **fields, "_id": ObjectId(), "created_time": NOW}
        await self.database.collection("package_histories").insert_one(new)
        kept = ("name", "value", "type", "sequence", "is_active", "is_deleted")
        row = {**{name: new[name] for name in kept}, "history_id": new["_id"], "version": 1}
        await self.database.collection("packages").replace_one(
            {"_id": new["package_id"]}, row, upsert=True
        )
        return new

    async def list(self, currency: offer_service_pb2.Currency.ValueType = USD) -> Any:
        request = offer_service_pb2.ListOffersRequest(currency=currency)
        return (await self.offers.ListOffers(request)).offers

    async def quote(self, snapshot: Document, number: int = 0, **fields: Any) -> Any:
        """Of the package's price of this number."""
        package_id = str(snapshot["package_id"])
        plan_id = str(snapshot["plans"][number]["plan_id"])
        return await self.quote_of(**{"package_id": package_id, "plan_id": plan_id, **fields})

    async def quote_of(self, **fields: Any) -> Any:
        request = offer_service_pb2.QuotePurchaseRequest(**{"currency": USD, **fields})
        return await self.offers.QuotePurchase(request)

    async def activate(
        self, user_id: str, snapshot: Document, coupon_code: str = "", request_id: str = ""
    ) -> Any:
        """The package's first price, paid for."""
        request = subscription_service_pb2.ActivatePackageRequest(
            request_id=request_id or new_key(),
            user_id=user_id,
            package_id=str(snapshot["package_id"]),
            plan_id=str(snapshot["plans"][0]["plan_id"]),
            coupon_code=coupon_code,
        )
        return await self.subscriptions.ActivatePackage(request)

    async def redeem(self, user_id: str, code: str, request_id: str = "") -> Any:
        return await redeem(self.offers, user_id, code, request_id)

    async def new_coupon(self, **fields: Any) -> coupon_pb2.Coupon:
        return await new_coupon(self.served, **fields)

    async def change_coupon(self, coupon: coupon_pb2.Coupon, **fields: Any) -> None:
        request = coupon_pb2.UpdateCouponRequest(
            coupon=coupon_pb2.Coupon(id=coupon.id, **fields), update_mask=FieldMask(paths=[*fields])
        )
        await self.served.catalog.UpdateCoupon(request)

    async def coupon(self, coupon_id: str) -> coupon_pb2.Coupon:
        request = coupon_pb2.GetCouponRequest(id=coupon_id)
        answer: coupon_pb2.GetCouponResponse = await self.served.catalog.GetCoupon(request)
        return answer.coupon


async def new_coupon(served: Served, **fields: Any) -> coupon_pb2.Coupon:
    """A live coupon of a code of its own, worth a million micro-credits unless it says else."""
    values = {
        "code": f"C{new_key()}".upper(),
        "discount_type": CREDITS,
        "is_active": True,
        **fields,
    }
    if values["discount_type"] == CREDITS:
        values.setdefault("credits_micros", 1_000_000)
    request = coupon_pb2.CreateCouponRequest(
        request_id=new_key(), coupon=coupon_pb2.Coupon(**values)
    )
    answer: coupon_pb2.CreateCouponResponse = await served.catalog.CreateCoupon(request)
    return answer.coupon


async def redeem(offers: Any, user_id: str, code: str, request_id: str = "") -> Any:
    request = offer_service_pb2.RedeemCouponRequest(
        request_id=request_id or new_key(), user_id=user_id, code=code
    )
    return await offers.RedeemCoupon(request)


def reasons(quoted: Any) -> list[str]:
    names = [ErrorReason.Name(refusal.reason) for refusal in quoted.refusals]
    return [name.removeprefix("ERROR_REASON_") for name in names]
