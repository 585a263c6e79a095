"""What packages are made of: their features and prices, through the rows that join them."""

from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any, Final, NamedTuple

from bson import ObjectId
from zaaz.catalog.v1.feature_pb2 import Feature
from zaaz.catalog.v1.package_plan_pb2 import PackagePlan
from zaaz.catalog.v1.plan_pb2 import Plan

from server.kernel.errors import DomainError, field_invalid
from server.resources.changes import Changes

MAX_PACKAGES: Final = 100
"""Packages that a feature or a plan may be in when it is changed: each gets a snapshot."""

MAX_FEATURES: Final = 500
MAX_PLANS: Final = 100
"""Of one package: a snapshot is one document, and one message."""

PACKAGES: Final = "packages"

Document = dict[str, Any]


class Part(NamedTuple):
    """A kind of part: rows of `joins` that match `in_use` refer to rows of `collection`.

    `place` sorts them by the join and what it refers to; `shown` is what a snapshot has of both.
    """

    name: str
    collection: str
    joins: str
    in_use: Document
    limit: int
    place: Callable[[Document, Document], int]
    shown: Callable[[Document, Document], Document]

    @property
    def field(self) -> str:
        """What holds the id, in a join."""
        return f"{self.name}_id"


async def packages_with(changes: Changes, part: Part, row_id: ObjectId) -> list[ObjectId]:
    """The packages that have this part; FIELD_INVALID beyond MAX_PACKAGES."""
    query = {**part.in_use, part.field: row_id}
    joins = await changes.tx.find(part.joins, query, limit=MAX_PACKAGES + 1)
    if len(joins) > MAX_PACKAGES:
        raise _in_too_many(part)
    return [join["package_id"] for join in joins]


async def refuse_one_more(changes: Changes, part: Part, row_id: ObjectId) -> None:
    """FIELD_INVALID where it would be in one package too many to be changed again."""
    if len(await packages_with(changes, part, row_id)) == MAX_PACKAGES:
        raise _in_too_many(part)


def _in_too_many(part: Part) -> DomainError:
    return field_invalid(f"{part.name}.id", f"may be in {MAX_PACKAGES} packages")


async def parts_of(
    changes: Changes, part: Part, package_ids: Collection[ObjectId]
) -> dict[ObjectId, list[Document]]:
    """What is shown of the parts of these packages, in order; FIELD_INVALID for too many."""
    query = {**part.in_use, "package_id": {"$in": list(package_ids)}}
    joins = await changes.tx.find(part.joins, query)
    ids = list({join[part.field] for join in joins})
    found = await changes.tx.find(part.collection, {"_id": {"$in": ids}})
    rows = {row["_id"]: row for row in found}
    placed: dict[ObjectId, list[tuple[int, ObjectId, Document]]] = defaultdict(list)
    for join in joins:
        row, shown = rows[join[part.field]], placed[join["package_id"]]
        shown.append((part.place(join, row), join["_id"], part.shown(join, row)))
        if len(shown) > part.limit:
            field = f"package_{part.name}.package_id"
            raise field_invalid(field, f"a package has at most {part.limit} {part.collection}")
    return {key: [one for *_, one in sorted(shown, key=_by)] for key, shown in placed.items()}


def _by(one: tuple[int, ObjectId, Document]) -> tuple[int, ObjectId]:
    return one[:2]


def _shown(row: Document, message: Any) -> Document:
    """What the message shows of the row."""
    names = message.DESCRIPTOR.fields_by_name
    return {key: row[key] for key in row if key in names or key in ("_id", "version")}


FEATURES: Final = Part(
    "feature",
    "features",
    "package_features",
    {"is_deleted": False, "is_active": True},
    MAX_FEATURES,
    lambda join, _: int(join["sequence"]),
    lambda _, feature: _shown(feature, Feature),
)

PLANS: Final = Part(
    "plan",
    "plans",
    "package_plans",
    # One that is switched off is still the package's, and says so.
    {"is_deleted": False},
    MAX_PLANS,
    lambda _, plan: int(plan["sequence"]),
    lambda price, plan: {**_shown(price, PackagePlan), "plan": _shown(plan, Plan)},
)
