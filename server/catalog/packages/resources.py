"""What is sold, for the resource engine."""

from typing import Final

from zaaz.catalog.v1.coupon_pb2 import Coupon
from zaaz.catalog.v1.feature_popup_pb2 import FeaturePopup
from zaaz.catalog.v1.package_feature_pb2 import PackageFeature
from zaaz.catalog.v1.package_history_pb2 import PackageHistory
from zaaz.catalog.v1.package_pb2 import Package
from zaaz.catalog.v1.package_plan_pb2 import PackagePlan
from zaaz.catalog.v1.plan_pb2 import Plan

from server.catalog.resources import FEATURES
from server.resources.model import Reference, Resource, Unique

_TIMES: Final = ("created_time", "updated_time")

FEATURE_POPUPS: Final = Resource(
    FeaturePopup,
    "feature_popups",
    unique=(Unique(("value",)),),
    references=(Reference("feature_id", FEATURES.collection, expand="feature"),),
    filterable=("value", "feature_id", "category", "priority", "is_active", *_TIMES),
    sortable=("name", "value", "priority", *_TIMES),
    searchable=("name", "value"),
)

PACKAGES: Final = Resource(
    Package,
    "packages",
    unique=(Unique(("value",)), Unique(("is_initial",), {"is_initial": True})),
    filterable=("value", "type", "sequence", "is_initial", "is_active", *_TIMES),
    sortable=("name", "value", "sequence", *_TIMES),
    searchable=("name", "value"),
    output_only=("features", "plans", "history_id"),
)

PLANS: Final = Resource(
    Plan,
    "plans",
    unique=(Unique(("name",)),),
    filterable=("name", "duration_days", "sequence", "is_active", *_TIMES),
    sortable=("name", "duration_days", "sequence", *_TIMES),
    searchable=("name",),
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
        Reference("plan_id", PLANS.collection, expand="plan"),
    ),
    filterable=("package_id", "plan_id", "is_initial", "is_active", *_TIMES),
    sortable=_TIMES,
    immutable=("package_id", "plan_id"),
)

PACKAGE_FEATURES: Final = Resource(
    PackageFeature,
    "package_features",
    unique=(Unique(("package_id", "feature_id")),),
    references=(
        Reference("package_id", PACKAGES.collection),
        Reference("feature_id", FEATURES.collection, expand="feature"),
    ),
    filterable=("package_id", "feature_id", "sequence", "is_active", *_TIMES),
    sortable=("sequence", *_TIMES),
    immutable=("package_id", "feature_id"),
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
    filterable=(
        *("code", "discount_type", "applicable_package_ids"),
        *("is_active", "valid_until_time", *_TIMES),
    ),
    sortable=("code", "valid_until_time", *_TIMES),
    searchable=("code",),
    output_only=("usage_count",),
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
