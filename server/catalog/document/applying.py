"""Carries a plan out, row by row, through the one way in which rows are written."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bson import ObjectId
from zaaz.catalog.v1.catalog_document_pb2 import CATALOG_ACTION_DELETE

from server.catalog.document.existing import Existing
from server.catalog.document.kinds import FEATURE, Kind, set_links
from server.catalog.document.planning import Step
from server.catalog.document.reading import Entry
from server.kernel.errors import DomainError, FieldViolation
from server.resources.changes import Changes


async def apply_steps(changes: Changes, steps: Iterable[Step], existing: Existing) -> None:
    """Refusals of rows name the path in the document."""
    ids = {
        (collection, name): row["_id"]
        for collection, rows in existing.live.items()
        for name, row in rows.items()
    }
    features: list[ObjectId] = []
    for step in steps:
        if step.entry is not None:
            with _naming(step.entry):
                ids[step.kind.collection, step.name] = await _write(changes, step, step.entry, ids)
        elif step.action == CATALOG_ACTION_DELETE and step.kind is FEATURE:
            features.append(_stored(step))
        elif step.action == CATALOG_ACTION_DELETE:
            await _delete(changes, step.kind, [_stored(step)], step.name)
    if features:
        # At once: a feature and those below it may only go together.
        await _delete(changes, FEATURE, features, "some of them")


async def _write(
    changes: Changes, step: Step, entry: Entry, ids: dict[tuple[str, str], ObjectId]
) -> ObjectId:
    """The id of the row that is now as the document says."""
    kind, message = entry.kind, entry.kind.said(entry.message)
    for link, said in entry.links:
        set_links(message, link, [ids[link.to, name] for name, _ in said])
    if step.row is None:
        row = await changes.create(kind.resource, kind.codec.encode(message))
        return ObjectId(row["_id"])
    # Read again: a step before may have changed it, as by becoming initial in its place.
    (old,) = await changes.get(kind.resource, [step.row["_id"]])
    target: Any = kind.codec.decode(old)
    for name in (*kind.settable, *(link.field for link in kind.links), "deleted_time"):
        target.ClearField(name)
    target.is_deleted = False
    target.MergeFrom(message)
    await changes.update(kind.resource, old, kind.codec.replaced(old, target))
    return ObjectId(old["_id"])


async def _delete(changes: Changes, kind: Kind, ids: Sequence[ObjectId], name: str) -> None:
    try:
        await changes.delete(kind.resource, await changes.get(kind.resource, ids))
    except DomainError as error:
        text = f"{kind.collection} that the document leaves out ({name}): {error.message}"
        raise DomainError(error.reason, text, error.metadata) from error


def _stored(step: Step) -> ObjectId:
    assert step.row is not None
    return ObjectId(step.row["_id"])


@contextmanager
def _naming(entry: Entry) -> Iterator[None]:
    """Says which row of the document it was that a rule refuses."""
    try:
        yield
    except DomainError as error:
        broken = [
            FieldViolation(entry.kind.path(entry.path, one.field), one.description)
            for one in error.violations
        ] or [FieldViolation(entry.path, error.message)]
        raise DomainError(
            error.reason,
            f"{entry.path} ({entry.name}): {error.message}",
            {**error.metadata, "field": broken[0].field},
            violations=broken,
            retry_delay_seconds=error.retry_delay_seconds,
        ) from error
