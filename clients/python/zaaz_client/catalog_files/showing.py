"""Differences as a file would say them: `credits` of 1000, not `credits_micros` of "1000000000"."""

import json
from typing import Any, Final

from google.protobuf.json_format import ParseDict, ParseError
from zaaz.catalog.v1.catalog_document_pb2 import FieldDifference
from zaaz.catalog.v1.coupon_pb2 import Coupon
from zaaz.catalog.v1.feature_endpoint_pb2 import FeatureEndpoint
from zaaz.catalog.v1.feature_pb2 import Feature
from zaaz.catalog.v1.feature_popup_pb2 import FeaturePopup
from zaaz.catalog.v1.package_feature_pb2 import PackageFeature
from zaaz.catalog.v1.package_pb2 import Package
from zaaz.catalog.v1.package_plan_pb2 import PackagePlan
from zaaz.catalog.v1.plan_pb2 import Plan

from zaaz_client.catalog_files.fields import fields_of
from zaaz_client.catalog_files.writing import write_value

_MESSAGES: Final[dict[str, Any]] = {
    "features": Feature,
    "feature_endpoints": FeatureEndpoint,
    "feature_popups": FeaturePopup,
    "plans": Plan,
    "packages": Package,
    "package_plans": PackagePlan,
    "package_features": PackageFeature,
    "coupons": Coupon,
}


def show_difference(resource: str, difference: FieldDifference) -> tuple[str, str, str]:
    """A field as a file calls it, and what it says of it before and after."""
    message = _MESSAGES.get(resource)
    fields = fields_of(message.DESCRIPTOR).values() if message is not None else ()
    key = next((one.key for one in fields if one.name == difference.field), difference.field)
    values = (difference.before, difference.after)
    before, after = (_value(message, difference.field, text) for text in values)
    return key, before, after


def _value(message: Any, field: str, text: str) -> str:
    """What is not known here, or was cut, is shown as it came."""
    try:
        value = json.loads(text)
        row = ParseDict({field: value}, message()) if message is not None else None
    except (ValueError, ParseError):
        row = None
    if row is not None and row.ListFields():
        return write_value(row, field)
    return text.strip('"')
