"""What a catalog document has rows of, and how it names them: without ids, by their own names."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from bson import ObjectId

from server.catalog.packages.resources import (
    COUPONS,
    FEATURE_POPUPS,
    PACKAGE_FEATURES,
    PACKAGE_PLANS,
    PACKAGES,
    PLANS,
)
from server.catalog.resources import FEATURE_ENDPOINTS, FEATURES
from server.resources.codec import Codec
from server.resources.model import OUTPUT_ONLY, Document, Resource

MAX_ROWS: Final = 2_000
"""Rows of one document: they are changed in one transaction, and told in one message."""


class Link(NamedTuple):
    """A reference of a row: `field` holds ids of rows of `to`, which a document calls `name`."""

    field: str
    name: str
    to: str
    many: bool = False
    required: bool = True


class Kind(NamedTuple):
    """A kind of row. `field` is its message's name in the document's own rows.

    `named_by` is the field that names a row; "" for one that is named by what it links:
    "pro/monthly". `settable` are the fields that a document says, without its links.
    """

    resource: Resource
    field: str
    named_by: str
    links: tuple[Link, ...]
    codec: Codec
    settable: tuple[str, ...]

    @property
    def collection(self) -> str:
        """Of its rows, and what it is called."""
        return self.resource.collection

    def name_of(self, row: Mapping[str, Any], names: Mapping[ObjectId, str]) -> str:
        """What a document calls a stored row; `names` are those of the rows that it links."""
        if self.named_by:
            return str(row[self.named_by])
        return "/".join(one for link in self.links for one in linked(row, link, names))

    def said(self, message: Any) -> Any:
        """A copy with nothing but what a document says."""
        copy = self.resource.message()
        copy.CopyFrom(message)
        for field in copy.DESCRIPTOR.fields:
            if field.name not in self.settable:
                copy.ClearField(field.name)
        return copy

    def path(self, row: str, field: str) -> str:
        """The path in the request of a field of the row at `row`, as a rule of rows names it."""
        return f"{row}.{self.field}.{field.removeprefix(self.field + '.')}"


def linked(row: Mapping[str, Any], link: Link, names: Mapping[ObjectId, str]) -> list[str]:
    """The names of what a stored row links. An id stands for what is gone for good."""
    found = row.get(link.field)
    ids = found if link.many else [found]
    return [names.get(one, str(one)) for one in ids or () if one is not None]


def set_links(message: Any, link: Link, ids: Iterable[ObjectId]) -> None:
    """Make the link of a message hold these ids."""
    texts = [str(one) for one in ids]
    message.ClearField(link.field)
    if link.many:
        getattr(message, link.field).extend(texts)
    elif texts:
        setattr(message, link.field, texts[0])


def link_ids(row: Document, link: Link) -> list[ObjectId]:
    """The ids in a link of a stored row."""
    found = row.get(link.field)
    return list(found or ()) if link.many else [found] if found is not None else []


def _kind(resource: Resource, field: str, named_by: str, *links: Link) -> Kind:
    filled_in = {reference.expand for reference in resource.references}
    filled_in |= {one.field for one in resource.collected}
    unsaid = {*OUTPUT_ONLY, *resource.output_only, *filled_in, *(link.field for link in links)}
    names = [one.name for one in resource.message.DESCRIPTOR.fields]
    settable = tuple(name for name in names if name not in unsaid)
    return Kind(resource, field, named_by, links, Codec(resource.message), settable)


_OF_FEATURE: Final = Link("feature_id", "feature", FEATURES.collection)
_OF_PACKAGE: Final = Link("package_id", "package", PACKAGES.collection)

FEATURE: Final = _kind(
    FEATURES,
    "feature",
    "value",
    Link("parent_id", "parent", FEATURES.collection, required=False),
)
FEATURE_ENDPOINT: Final = _kind(FEATURE_ENDPOINTS, "feature_endpoint", "value", _OF_FEATURE)
FEATURE_POPUP: Final = _kind(FEATURE_POPUPS, "feature_popup", "value", _OF_FEATURE)
PLAN: Final = _kind(PLANS, "plan", "name")
PACKAGE: Final = _kind(PACKAGES, "package", "value")
PACKAGE_PLAN: Final = _kind(
    PACKAGE_PLANS, "package_plan", "", _OF_PACKAGE, Link("plan_id", "plan", PLANS.collection)
)
PACKAGE_FEATURE: Final = _kind(PACKAGE_FEATURES, "package_feature", "", _OF_PACKAGE, _OF_FEATURE)
COUPON: Final = _kind(
    COUPONS,
    "coupon",
    "code",
    Link("applicable_package_ids", "packages", PACKAGES.collection, many=True),
)

KINDS: Final = (
    FEATURE,
    FEATURE_ENDPOINT,
    FEATURE_POPUP,
    PLAN,
    PACKAGE,
    PACKAGE_PLAN,
    PACKAGE_FEATURE,
    COUPON,
)
"""In the order in which their rows are made: what is linked comes before what links it."""

INITIAL: Final = "is_initial"

WITH_INITIAL: Final = (PACKAGE, PACKAGE_PLAN)
"""Kinds of which one is initial: of all, or of a package's."""

LISTS: Final = (
    (FEATURE, "features"),
    (FEATURE_ENDPOINT, "feature_endpoints"),
    (FEATURE_POPUP, "feature_popups"),
    (PLAN, "plans"),
    (PACKAGE, "packages"),
    (COUPON, "coupons"),
)
"""The document's own lists."""

PACKAGE_LISTS: Final = ((PACKAGE_PLAN, "plans"), (PACKAGE_FEATURE, "features"))
"""The lists within each of its packages."""
