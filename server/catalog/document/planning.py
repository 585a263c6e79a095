"""What has to be done so that the catalog is like a document. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Final, NamedTuple

from zaaz.catalog.v1.catalog_document_pb2 import (
    CATALOG_ACTION_CREATE,
    CATALOG_ACTION_DELETE,
    CATALOG_ACTION_RESTORE,
    CATALOG_ACTION_UPDATE,
    CatalogAction,
    FieldDifference,
)

from server.catalog.document.existing import Existing
from server.catalog.document.kinds import (
    COUPON,
    FEATURE,
    FEATURE_ENDPOINT,
    FEATURE_POPUP,
    INITIAL,
    KINDS,
    PACKAGE,
    PACKAGE_FEATURE,
    PACKAGE_PLAN,
    PLAN,
    Kind,
)
from server.catalog.document.reading import Entry
from server.catalog.document.views import (
    View,
    differences,
    view_of,
    view_of_row,
    without_defaults,
)
from server.kernel.errors import DomainError, FieldViolation, Reason, field_invalid, refused
from server.resources.model import Document

_DELETED_IN_ORDER: Final = (
    *(PACKAGE_FEATURE, PACKAGE_PLAN, COUPON, FEATURE_POPUP, FEATURE_ENDPOINT),
    *(PACKAGE, PLAN, FEATURE),
)
"""What links comes before what is linked."""


_ALL_PACKAGES: Final = ""


class Step(NamedTuple):
    """A row to be changed. `row` is what is stored; None: nothing.

    `entry` is what the document says of it; None: it leaves it out, and deletes it, or has it
    give way to another one that is to be initial.
    """

    action: "CatalogAction.ValueType"
    kind: Kind
    name: str
    entry: Entry | None
    row: Document | None
    fields: list[FieldDifference]


class Plan(NamedTuple):
    """The steps in their order, and how many rows are so already."""

    steps: list[Step]
    unchanged: int


def make_plan(entries: Sequence[Entry], existing: Existing, *, whole: bool) -> Plan:
    """How the catalog becomes like the document; only like it, if it is the `whole` catalog.

    REFERENCE_NOT_FOUND, CYCLE and FIELD_INVALID name the path in the document.
    """
    _check_links(entries, existing, whole=whole)
    ordered = _in_order(_with_initial(entries, existing, whole=whole), existing)
    made = [step for entry in ordered for step in _step(entry, existing)]
    replaced = () if whole else _replaced(ordered, existing)
    deleted = _deletions(ordered, existing, whole=whole)
    return Plan([*made, *replaced, *deleted], len(ordered) - len(made))


def _check_links(entries: Sequence[Entry], existing: Existing, *, whole: bool) -> None:
    known: dict[str, set[str]] = {kind.collection: set() for kind in KINDS}
    if not whole:
        known = {collection: set(rows) for collection, rows in existing.live.items()}
    for entry in entries:
        known[entry.kind.collection].add(entry.name)
    for entry in entries:
        for link, said in entry.links:
            for name, path in said:
                if name not in known[link.to]:
                    where = "the document has" if whole else "there are"
                    text = f"{name!r} is not among the {link.to} that {where}"
                    metadata = {"field": path, "name": name}
                    raise refused(Reason.REFERENCE_NOT_FOUND, path, text, metadata)


# One of all is initial


def _with_initial(entries: Sequence[Entry], existing: Existing, *, whole: bool) -> list[Entry]:
    """The entries with one initial one, of packages and of each package's plans.

    Unsaid, it is the one that is so already, or else the first. FIELD_INVALID when two are to be.
    """
    chosen: dict[str, str] = {}
    groups = [(group, entry) for entry in entries if (group := _group(entry)) is not None]
    for group, entry in groups:
        if entry.message.is_initial and chosen.setdefault(group, entry.name) != entry.name:
            path = entry.kind.path(entry.path, INITIAL)
            raise field_invalid(path, f"{chosen[group]} is to be the initial one already")
    for group, entry in groups:
        row = existing.live[entry.kind.collection].get(entry.name, {})
        if row.get(INITIAL):
            chosen.setdefault(group, entry.name)
    if not whole and any(row.get(INITIAL) for row in existing.live[PACKAGE.collection].values()):
        # One that the document leaves out stays it.
        chosen.setdefault(_ALL_PACKAGES, "")
    for group, entry in groups:
        chosen.setdefault(group, entry.name)
    return [_initial(entry, chosen) for entry in entries]


def _group(entry: Entry) -> str | None:
    """What one of which is initial: all packages, a package's plans; None for other rows."""
    if entry.kind is PACKAGE:
        return _ALL_PACKAGES
    return f"/{entry.linked['package'][0]}" if entry.kind is PACKAGE_PLAN else None


def _initial(entry: Entry, chosen: Mapping[str, str]) -> Entry:
    group = _group(entry)
    if group is None or chosen[group] != entry.name:
        return entry
    message = entry.kind.said(entry.message)
    message.is_initial = True
    return entry._replace(message=message)


def _replaced(entries: Sequence[Entry], existing: Existing) -> Iterator[Step]:
    """The package that is initial no longer, because one of the document is to be."""
    packages = [entry for entry in entries if entry.kind is PACKAGE]
    if not any(entry.message.is_initial for entry in packages):
        return
    said = {entry.name for entry in packages}
    for name, row in existing.live[PACKAGE.collection].items():
        if name not in said and row.get(INITIAL):
            before = {INITIAL: "true"}
            fields = differences(before, {INITIAL: "false"})
            yield Step(CATALOG_ACTION_UPDATE, PACKAGE, name, None, row, fields)


# In which order


def _in_order(entries: Sequence[Entry], existing: Existing) -> list[Entry]:
    """What is linked before what links it."""
    by_kind: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_kind[entry.kind.collection].append(entry)
    by_kind[FEATURE.collection] = _parents_first(by_kind[FEATURE.collection], existing)
    return [entry for kind in KINDS for entry in by_kind[kind.collection]]


def _parents_first(features: Sequence[Entry], existing: Existing) -> list[Entry]:
    """Features in the order of the tree that there will be, others than these included; CYCLE."""
    above: dict[str, set[str]] = {
        name: {existing.names[row["parent_id"]]} if "parent_id" in row else set()
        for name, row in existing.live[FEATURE.collection].items()
    }
    above |= {entry.name: set(entry.linked["parent"]) for entry in features}
    try:
        place = {name: i for i, name in enumerate(TopologicalSorter(above).static_order())}
    except CycleError as error:
        raise _cycle(features, error.args[1]) from None
    return sorted(features, key=lambda entry: place[entry.name])


def _cycle(features: Sequence[Entry], names: Sequence[str]) -> DomainError:
    first = next(entry for entry in features if entry.name in names)
    path, text = f"{first.path}.parent", " is a part of ".join(names[::-1])
    violation = FieldViolation(path, text)
    metadata = {"field": path}
    return DomainError(Reason.CYCLE, f"{path}: {text}", metadata, violations=[violation])


# What becomes of each


def _step(entry: Entry, existing: Existing) -> Iterator[Step]:
    kind, name, after = entry.kind, entry.name, view_of(entry)
    row = existing.find(kind.collection, name)
    if row is None:
        fields = differences({}, without_defaults(after))
        yield Step(CATALOG_ACTION_CREATE, kind, name, entry, None, fields)
        return
    before: View = view_of_row(kind, row, existing.names)
    fields = differences(before, after)
    if row["is_deleted"]:
        yield Step(CATALOG_ACTION_RESTORE, kind, name, entry, row, fields)
    elif before != after:
        yield Step(CATALOG_ACTION_UPDATE, kind, name, entry, row, fields)


def _deletions(entries: Sequence[Entry], existing: Existing, *, whole: bool) -> list[Step]:
    """The rows that the document leaves out: a package's own, or any of the `whole` catalog."""
    said = {(entry.kind.collection, entry.name) for entry in entries}
    packages = {entry.name for entry in entries if entry.kind is PACKAGE}
    steps: list[Step] = []
    for kind in _DELETED_IN_ORDER:
        if not (whole or not kind.named_by):
            continue
        rows = existing.live[kind.collection].items()
        left_out = [
            (name, row)
            for name, row in rows
            if (kind.collection, name) not in said
            and (whole or existing.names[row["package_id"]] in packages)
        ]
        steps += [
            Step(CATALOG_ACTION_DELETE, kind, name, None, row, []) for name, row in sorted(left_out)
        ]
    return steps
