"""Catalogs as documents, and how a test applies them."""

from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from pymongo.asynchronous.database import AsyncDatabase
from zaaz.catalog.v1 import catalog_document_pb2 as pb
from zaaz.catalog.v1.coupon_pb2 import DISCOUNT_TYPE_PERCENTAGE, Coupon
from zaaz.catalog.v1.feature_endpoint_pb2 import HTTP_METHOD_POST, FeatureEndpoint
from zaaz.catalog.v1.feature_pb2 import FEATURE_TYPE_WRITING, Feature, WordLimit
from zaaz.catalog.v1.feature_popup_pb2 import (
    POPUP_CATEGORY_MULTI_TIME,
    FeaturePopup,
    PopupAction,
)
from zaaz.catalog.v1.package_feature_pb2 import PackageFeature
from zaaz.catalog.v1.package_pb2 import PACKAGE_TYPE_SUBSCRIPTION, Package
from zaaz.catalog.v1.package_plan_pb2 import PackagePlan, Price
from zaaz.catalog.v1.plan_pb2 import Plan

from server.catalog.document.kinds import KINDS
from server.catalog.packages.resources import PACKAGE_HISTORIES
from tests.serving import Served

CREDIT = 1_000_000
HISTORIES = (PACKAGE_HISTORIES.collection, "feature_endpoint_histories")


def feature(value: str, parent: str = "", **fields: Any) -> pb.CatalogFeature:
    values = {"name": value.title(), "is_active": True, **fields}
    return pb.CatalogFeature(feature=Feature(value=value, **values), parent=parent)


def endpoint(value: str, of: str, **fields: Any) -> pb.CatalogFeatureEndpoint:
    values = {"name": value.title(), "method": HTTP_METHOD_POST, "is_active": True, **fields}
    return pb.CatalogFeatureEndpoint(
        feature_endpoint=FeatureEndpoint(value=value, **values), feature=of
    )


def popup(value: str, of: str, **fields: Any) -> pb.CatalogFeaturePopup:
    values = {"name": value.title(), "category": POPUP_CATEGORY_MULTI_TIME, "is_active": True}
    made = FeaturePopup(value=value, **{**values, **fields})
    return pb.CatalogFeaturePopup(feature_popup=made, feature=of)


def plan(name: str, days: int = 30, **fields: Any) -> pb.CatalogPlan:
    return pb.CatalogPlan(plan=Plan(name=name, duration_days=days, is_active=True, **fields))


def price(of: str, usd: int = 0, **fields: Any) -> pb.CatalogPackagePlan:
    made = PackagePlan(price=Price(usd_micros=usd * CREDIT), is_active=True, **fields)
    return pb.CatalogPackagePlan(package_plan=made, plan=of)


def included(name: str, sequence: int = 0) -> pb.CatalogPackageFeature:
    made = PackageFeature(is_active=True, sequence=sequence)
    return pb.CatalogPackageFeature(package_feature=made, feature=name)


def package(
    value: str,
    plans: Sequence[pb.CatalogPackagePlan] = (),
    features: Sequence[str] = (),
    **fields: Any,
) -> pb.CatalogPackage:
    values = {"name": value.title(), "type": PACKAGE_TYPE_SUBSCRIPTION, "is_active": True, **fields}
    return pb.CatalogPackage(
        package=Package(value=value, **values),
        plans=plans,
        features=[included(name, i) for i, name in enumerate(features, start=1)],
    )


def coupon(code: str, *packages: str, **fields: Any) -> pb.CatalogCoupon:
    values = {"discount_type": DISCOUNT_TYPE_PERCENTAGE, "discount_ppm": 100_000, **fields}
    return pb.CatalogCoupon(coupon=Coupon(code=code, is_active=True, **values), packages=packages)


def shop() -> pb.CatalogDocument:
    """Something of everything."""
    return pb.CatalogDocument(
        features=[
            feature(
                "chat",
                "ai",
                type=FEATURE_TYPE_WRITING,
                max_word=WordLimit(free=100, paid=1_000),
                path="/chat",
            ),
            feature("ai", sequence=1),
            feature("images", "ai", is_active=False),
        ],
        feature_endpoints=[
            endpoint("chat.send", "chat", credits_micros=CREDIT // 2, endpoint="/v1/chat"),
            endpoint("images.draw", "images", credits_micros=3 * CREDIT),
        ],
        feature_popups=[
            popup(
                "welcome",
                "chat",
                priority=3,
                content="<p>Hello</p>",
                actions=[PopupAction(name="Go", path="/go", type="link")],
            )
        ],
        plans=[plan("monthly", sequence=1), plan("yearly", 365, sequence=2)],
        packages=[
            package("free", [price("monthly", is_initial=True)], ["chat"], is_initial=True),
            package(
                "pro",
                [
                    price("monthly", 10, credits_micros=1_000 * CREDIT, is_initial=True),
                    price("yearly", 99, previous_price=Price(usd_micros=120 * CREDIT)),
                ],
                ["chat", "images"],
                sequence=2,
                badge="Popular",
                points=["All of it", "And more"],
                content="<p>Good</p>",
            ),
        ],
        coupons=[coupon("WELCOME10", "pro", usage_limit=5), coupon("ALL20")],
    )


async def apply(
    served: Served, document: pb.CatalogDocument, **options: Any
) -> pb.ApplyCatalogResponse:
    request = pb.ApplyCatalogRequest(document=document, **options)
    answer: pb.ApplyCatalogResponse = await served.catalog.ApplyCatalog(request)
    return answer


async def export(served: Served) -> pb.CatalogDocument:
    answer: pb.ExportCatalogResponse = await served.catalog.ExportCatalog(pb.ExportCatalogRequest())
    return answer.document


def told(answer: pb.ApplyCatalogResponse) -> list[str]:
    """The differences as text: "CREATE packages pro"."""
    return [
        f"{pb.CatalogAction.Name(one.action).removeprefix('CATALOG_ACTION_')}"
        f" {one.resource} {one.name}"
        for one in answer.differences
    ]


def fields(answer: pb.ApplyCatalogResponse, name: str) -> dict[str, tuple[str, str]]:
    """What changes of one row, before and after."""
    (one,) = [one for one in answer.differences if one.name == name]
    return {field.field: (field.before, field.after) for field in one.fields}


async def forget_catalog(database: AsyncDatabase[dict[str, Any]]) -> None:
    """As if there had never been one."""
    for name in (*(kind.collection for kind in KINDS), *HISTORIES):
        await database[name].delete_many({})


async def refusal(call: Any) -> tuple[str, dict[str, str]]:
    """The reason, and what is wrong by field."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return details_of(caught.value)


def details_of(error: grpc.aio.AioRpcError) -> tuple[str, dict[str, str]]:
    (raw,) = [
        value for key, value in error.trailing_metadata() or () if key == "grpc-status-details-bin"
    ]
    assert isinstance(raw, bytes)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(raw).details:
        detail.Unpack(info)
        detail.Unpack(bad)
    return info.reason, {one.field: one.description for one in bad.field_violations}
