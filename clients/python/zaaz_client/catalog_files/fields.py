"""What a file calls the fields of the contract's messages, found by their descriptors.

A field is called what it is called, shorter where that is plain: `credits` for credits_micros,
`active` for is_active. So a new field of the contract is in files by itself.
"""

from functools import cache
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor

OUTPUT_ONLY: Final = frozenset(
    {
        *("id", "is_deleted", "etag", "created_time", "updated_time", "deleted_time"),
        *("usage_count", "history_id"),
        # Rows of other kinds, by id or filled in: a file has them by their names.
        *("parent_id", "feature_id", "package_id", "plan_id", "applicable_package_ids"),
        *("parent", "feature", "plan", "features", "plans"),
    }
)
"""Never in a file."""

ACTIVE: Final = "is_active"
"""True unless a file says otherwise, as for most rows."""

NAMED_BY: Final = {
    "Feature": "value",
    "FeatureEndpoint": "value",
    "FeaturePopup": "value",
    "Plan": "name",
    "Package": "value",
    "Coupon": "code",
}
"""The field that is a row's key in its file."""

_KEYS: Final = {
    "is_active": "active",
    "is_initial": "initial",
    "duration_days": "days",
    "discount_type": "type",
    "discount_ppm": "percent",
    "valid_from_time": "valid_from",
    "valid_until_time": "valid_until",
}
_MICROS: Final = "_micros"


class Field(NamedTuple):
    """A field by what a file calls it."""

    key: str
    descriptor: FieldDescriptor

    @property
    def name(self) -> str:
        """What the contract calls it."""
        return str(self.descriptor.name)

    @property
    def is_amount(self) -> bool:
        """Whether it is credits or money."""
        return self.name.endswith(_MICROS)

    @property
    def is_percent(self) -> bool:
        """Whether it is a part of a whole."""
        return self.name.endswith("_ppm")

    @property
    def is_message(self) -> bool:
        """Whether it is, or repeats, fields of its own."""
        return self.descriptor.message_type is not None and not self.is_time

    @property
    def is_time(self) -> bool:
        """Whether it is a moment."""
        inside: Any = self.descriptor.message_type
        return inside is not None and inside.full_name == "google.protobuf.Timestamp"


@cache
def fields_of(message: Descriptor) -> dict[str, Field]:
    """The fields that a file may have of a message, by key, in the contract's order."""
    unsaid = OUTPUT_ONLY | {NAMED_BY.get(message.name, "")}
    descriptors: Any = message.fields
    fields = (
        Field(_KEYS.get(one.name, one.name.removesuffix(_MICROS)), one)
        for one in descriptors
        if one.name not in unsaid
    )
    return {field.key: field for field in fields}
