"""What is sold, for the resource engine."""

from typing import Final

from zaaz.catalog.v1.coupon_pb2 import Coupon
from zaaz.catalog.v1.feature_popup_pb2 import FeaturePopup
from zaaz.catalog.v1.package_feature_pb2 import PackageFeature
from zaaz.catalog.v1.package_history_pb2 import PackageHistory
from zaaz.catalog.v1.package_pb2 import Package
from zaaz.catalog.v1.package_plan_pb2 import PackagePlan
from zaaz.catalog.v1.plan_pb2 import Plan

from server.catalog.html import sanitise
from server.catalog.packages import guards
from server.catalog.packages.coupon_rules import check_coupon, in_capitals
from server.catalog.resources import FEATURES
from server.resources.model import Collected, Document, Reference, Resource, Unique

_TIMES: Final = ("created_time", "updated_time")
_OF_FEATURE: Final = Reference("feature_id", FEATURES.collection, expand="feature")
_OF_PLAN: Final = Reference("plan_id", "plans", expand="plan")


def _clean_popup(document: Document) -> Document:
    return {**document, "content": sanitise(document["content"], "feature_popup.content")}


def _clean_package(document: Document) -> Document:
    return {**document, "content": sanitise(document["content"], "package.content")}


FEATURE_POPUPS: Final = Resource(
    FeaturePopup,
    "feature_popups",
    unique=(Unique(("value",)),),
    references=(_OF_FEATURE,),
    filterable=("value", "feature_id", "category", "priority", "is_active", *_TIMES),
    sortable=("name", "value", "priority", *_TIMES),
    searchable=("name", "value"),
    normalize=_clean_popup,
)

PACKAGES: Final = Resource(
    Package,
    "packages",
    unique=(Unique(("value",)), Unique(("is_initial",), {"is_initial": True})),
    collected=(
        Collected(
            "features",
            "package_features",
            "package_id",
            _OF_FEATURE,
            order="sequence",
            where={"is_active": True},
            of_reference=True,
        ),
        Collected("plans", "package_plans", "package_id", _OF_PLAN, "plan.sequence", where={}),
    ),
    filterable=("value", "type", "sequence", "is_initial", "is_active", *_TIMES),
    sortable=("name", "value", "sequence", *_TIMES),
    searchable=("name", "value"),
    output_only=("history_id",),
    normalize=_clean_package,
    guard=guards.guard_package,
)

PLANS: Final = Resource(
    Plan,
    "plans",
    unique=(Unique(("name",)),),
    filterable=("name", "duration_days", "sequence", "is_active", *_TIMES),
    sortable=("name", "duration_days", "sequence", *_TIMES),
    searchable=("name",),
    guard=guards.guard_plan,
)

PACKAGE_PLANS: Final = Resource(
    PackagePlan,
    "package_plans",
    unique=(
        Unique(("package_id", "plan_id")),
        Unique(("package_id", "is_initial"), {"is_initial": True}),
    ),
    references=(
        Reference("package_id", PACKAGES.collection),
        _OF_PLAN,
    ),
    filterable=("package_id", "plan_id", "is_initial", "is_active", *_TIMES),
    sortable=_TIMES,
    immutable=("package_id", "plan_id"),
    guard=guards.guard_price,
)

PACKAGE_FEATURES: Final = Resource(
    PackageFeature,
    "package_features",
    unique=(Unique(("package_id", "feature_id")),),
    references=(
        Reference("package_id", PACKAGES.collection),
        _OF_FEATURE,
    ),
    filterable=("package_id", "feature_id", "sequence", "is_active", *_TIMES),
    sortable=("sequence", *_TIMES),
    immutable=("package_id", "feature_id"),
    guard=guards.guard_included,
)

PACKAGE_HISTORIES: Final = Resource(
    PackageHistory,
    "package_histories",
    filterable=("package_id", "value", "created_time"),
    sortable=("created_time",),
    read_only=True,
)

COUPONS: Final = Resource(
    Coupon,
    "coupons",
    unique=(Unique(("code",)),),
    references=(Reference("applicable_package_ids", PACKAGES.collection),),
    filterable=(
        *("code", "discount_type", "applicable_package_ids"),
        *("is_active", "valid_until_time", *_TIMES),
    ),
    sortable=("code", "valid_until_time", *_TIMES),
    searchable=("code",),
    output_only=("usage_count",),
    normalize=in_capitals,
    check=check_coupon,
)

RESOURCES: Final = (
    FEATURE_POPUPS,
    PACKAGES,
    PLANS,
    PACKAGE_PLANS,
    PACKAGE_FEATURES,
    PACKAGE_HISTORIES,
    COUPONS,
)
