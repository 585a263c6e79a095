"""What makes a coupon whole: the fields of its type, and none of another's."""

from typing import Any, Final

from zaaz.catalog.v1.coupon_pb2 import (
    DISCOUNT_TYPE_CREDITS,
    DISCOUNT_TYPE_FIXED,
    DISCOUNT_TYPE_PERCENTAGE,
    DiscountType,
)

from server.kernel.errors import DomainError, field_invalid

_FIELDS: Final = {
    DISCOUNT_TYPE_PERCENTAGE: "discount_ppm",
    DISCOUNT_TYPE_FIXED: "fixed_amount",
    DISCOUNT_TYPE_CREDITS: "credits_micros",
}

Document = dict[str, Any]


def in_capitals(document: Document) -> Document:
    """A code is the same in any case."""
    return {**document, "code": document["code"].upper()}


def check_coupon(new: Document, _old: Document | None) -> None:
    """FIELD_INVALID for what its type needs, or has no use for, and for a time that ends first."""
    kind = new["discount_type"]
    for other, field in _FIELDS.items():
        is_set = bool(new.get(field))
        if is_set != (other == kind):
            need = "has to be set" if other == kind else "has to be unset"
            raise _invalid(field, f"{need} for {DiscountType.Name(kind)}")
    if new.get("credits_days", 0) and kind != DISCOUNT_TYPE_CREDITS:
        raise _invalid("credits_days", f"has to be unset for {DiscountType.Name(kind)}")
    begin, end = new.get("valid_from_time"), new.get("valid_until_time")
    if begin is not None and end is not None and begin >= end:
        raise _invalid("valid_until_time", "has to be after valid_from_time")


def _invalid(field: str, description: str) -> DomainError:
    return field_invalid(f"coupon.{field}", description)
