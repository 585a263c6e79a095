"""The stored rows that a document is compared with, called as it calls them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bson import ObjectId

from server.catalog.document.kinds import FEATURE, KINDS, MAX_ROWS, PACKAGE, Kind, link_ids
from server.catalog.document.reading import Entry
from server.kernel.errors import field_invalid
from server.resources.changes import Changes
from server.resources.model import Document

MAX_FEATURES: Final = 20_000
"""Live features that a catalog may have beside a document's."""

MAX_DELETED: Final = 10_000
"""Deleted rows of a document's names that one is looked for in to come back."""

_BY_COLLECTION: Final[Mapping[str, Kind]] = {kind.collection: kind for kind in KINDS}


class Existing:
    """`live` and `deleted` rows by collection and name, `names` of rows by their ids.

    Of live rows: all features, what the document names, and all that is a package's own. Or all,
    for a document that is the whole catalog. Of deleted ones: what the document has no live ones
    of, the latest of each name.
    """

    def __init__(self) -> None:
        self.live: dict[str, dict[str, Document]] = {kind.collection: {} for kind in KINDS}
        self.deleted: dict[str, dict[str, Document]] = {kind.collection: {} for kind in KINDS}
        self.names: dict[ObjectId, str] = {}

    def find(self, collection: str, name: str) -> Document | None:
        """The live row, or else the deleted one that would come back."""
        return self.live[collection].get(name) or self.deleted[collection].get(name)


async def load_existing(changes: Changes, entries: Sequence[Entry], *, whole: bool) -> Existing:
    """What there is of these rows; of all, if they are the `whole` catalog.

    FIELD_INVALID when there is more than a document can be compared with.
    """
    existing = Existing()
    wanted: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        wanted[entry.kind.collection].add(entry.name)
        for link, said in entry.links:
            wanted[link.to].update(name for name, _ in said)
    for kind in KINDS:
        await _load(changes, existing, kind, wanted[kind.collection], whole=whole)
    return existing


async def load_all(changes: Changes) -> Existing:
    """All live rows; FIELD_INVALID when a document could not hold them."""
    return await load_existing(changes, (), whole=True)


async def _load(
    changes: Changes, existing: Existing, kind: Kind, wanted: set[str], *, whole: bool
) -> None:
    limit = MAX_FEATURES if kind is FEATURE and not whole else MAX_ROWS
    all_of_it = whole or kind is FEATURE
    query = {"is_deleted": False, **({} if all_of_it else _of(kind, wanted, existing))}
    rows = await changes.find(kind.resource, query, limit + 1)
    if len(rows) > limit:
        text = f"there are more than {limit:,} {kind.collection}, which no document can hold"
        raise field_invalid("document", text)
    await _learn_names(changes, existing, kind, rows)
    live = existing.live[kind.collection]
    live.update((kind.name_of(row, existing.names), row) for row in rows)
    missing = wanted - live.keys()
    if not missing:
        return
    query = {"is_deleted": True, **_of(kind, missing, existing)}
    gone = await changes.find(kind.resource, query, MAX_DELETED)
    await _learn_names(changes, existing, kind, gone)
    deleted = existing.deleted[kind.collection]
    for row in sorted(gone, key=lambda one: one["deleted_time"]):
        name = kind.name_of(row, existing.names)
        if name in missing and _links_what_is_found(existing, kind, row):
            deleted[name] = row
            existing.names[row["_id"]] = name


def _of(kind: Kind, names: Iterable[str], existing: Existing) -> Document:
    """The query for rows of these names; of a package's own rows, all of those packages."""
    if not kind.named_by:
        packages = existing.live[PACKAGE.collection], existing.deleted[PACKAGE.collection]
        return {"package_id": {"$in": [row["_id"] for rows in packages for row in rows.values()]}}
    named: Document = {kind.named_by: {"$in": sorted(names)}}
    return {"$or": [named, {"is_initial": True}]} if kind is PACKAGE else named


async def _learn_names(
    changes: Changes, existing: Existing, kind: Kind, rows: Sequence[Document]
) -> None:
    """What these rows are called, and what they link."""
    names = existing.names
    if kind.named_by:
        names.update((row["_id"], row[kind.named_by]) for row in rows if not row["is_deleted"])
    for link in kind.links:
        linked = {one for row in rows for one in link_ids(row, link)} - names.keys()
        if linked:
            other = _BY_COLLECTION[link.to]
            query: Mapping[str, Any] = {"_id": {"$in": list(linked)}}
            found = await changes.find(other.resource, query)
            names.update((row["_id"], row[other.named_by]) for row in found)


def _links_what_is_found(existing: Existing, kind: Kind, row: Document) -> bool:
    """Of a package's own row: it is of this package and this plan, not of namesakes of old."""
    if kind.named_by:
        return True
    return all(
        (found := existing.find(link.to, existing.names[one])) is not None and found["_id"] == one
        for link in kind.links
        for one in link_ids(row, link)
        if one in existing.names
    )
