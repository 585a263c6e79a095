"""Packages, plans and what joins them, as a test wants them, made through the contract."""

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from zaaz.catalog.v1 import (
    catalog_service_pb2,
    coupon_pb2,
    feature_popup_pb2,
    package_feature_pb2,
    package_history_pb2,
    package_pb2,
    package_plan_pb2,
    plan_pb2,
)

from tests.catalog.calls import new_feature
from tests.serving import Served, new_key

_MODULES = (
    package_pb2,
    plan_pb2,
    package_plan_pb2,
    package_feature_pb2,
    coupon_pb2,
    feature_popup_pb2,
    package_history_pb2,
)
_SERVICE = catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"]


async def call(served: Served, method: str, **fields: Any) -> Any:
    """The answer to the method's request of these fields."""
    name = _SERVICE.methods_by_name[method].input_type.name
    module: Any = next(one for one in _MODULES if hasattr(one, name))
    return await getattr(served.catalog, method)(getattr(module, name)(**fields))


async def new_package(served: Served, **fields: Any) -> Any:
    """A live package of a value of its own."""
    value = f"pro-{new_key()}"
    package = {"name": "Pro", "value": value, "type": 2, "is_active": True, **fields}
    return (await call(served, "CreatePackage", package=package)).package


async def new_plan(served: Served, **fields: Any) -> Any:
    """A live plan of a name of its own."""
    plan = {"name": f"Monthly {new_key()}", "duration_days": 30, "is_active": True, **fields}
    return (await call(served, "CreatePlan", plan=plan)).plan


async def new_price(served: Served, package_id: str, plan_id: str = "", **fields: Any) -> Any:
    """A live price of the package, under a plan of its own unless one is given."""
    plan_id = plan_id or (await new_plan(served)).id
    price = {"price": {"usd_micros": 9_990_000}, "credits_micros": 5, "is_active": True, **fields}
    joined = {"package_id": package_id, "plan_id": plan_id, **price}
    return (await call(served, "CreatePackagePlan", package_plan=joined)).package_plan


async def include(served: Served, package_id: str, feature_id: str = "", **fields: Any) -> Any:
    """That the package includes a feature, one of its own unless it is given."""
    feature_id = feature_id or (await new_feature(served)).id
    joined = {"package_id": package_id, "feature_id": feature_id, "is_active": True, **fields}
    return (await call(served, "CreatePackageFeature", package_feature=joined)).package_feature


async def change(served: Served, kind: str, row_id: str, *paths: str, **fields: Any) -> Any:
    """The row after the change of these fields, and of `paths` that are not set."""
    field = "".join(f"_{one.lower()}" if one.isupper() else one for one in kind).lstrip("_")
    mask = FieldMask(paths=[*fields, *paths])
    row = {"id": row_id, **fields}
    answer = await call(served, f"Update{kind}", **{field: row}, update_mask=mask)
    return getattr(answer, field)


async def package(served: Served, package_id: str) -> Any:
    return (await call(served, "GetPackage", id=package_id)).package


async def price(served: Served, price_id: str) -> Any:
    return (await call(served, "GetPackagePlan", id=price_id)).package_plan


async def histories(served: Served, package_id: str) -> list[Any]:
    """A package's snapshots, the oldest first."""
    query = {"filter": f"package_id = {package_id}", "order_by": "created_time asc"}
    answer = await call(served, "ListPackageHistories", **query, page_size=1_000)
    return list(answer.package_histories)


async def newest(served: Served, package_id: str) -> Any:
    """The snapshot that the package points at."""
    history_id = (await package(served, package_id)).history_id
    return (await call(served, "GetPackageHistory", id=history_id)).package_history
