"""Carries a plan out, row by row, through the one way in which rows are written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Final

from bson import ObjectId
from zaaz.catalog.v1.catalog_document_pb2 import (
    CATALOG_ACTION_DELETE,
    CATALOG_ACTION_RESTORE,
)

from server.catalog.document.existing import Existing
from server.catalog.document.kinds import INITIAL, WITH_INITIAL, Kind, set_links
from server.catalog.document.planning import Step
from server.catalog.document.reading import Entry
from server.kernel.errors import DomainError, FieldViolation
from server.resources.changes import Changes
from server.resources.model import Document

MAX_NAMED: Final = 10
"""Rows that a refusal names."""


async def apply_steps(changes: Changes, steps: Sequence[Step], existing: Existing) -> None:
    """Refusals of rows name the path in the document."""
    ids = {
        (collection, name): row["_id"]
        for collection, rows in existing.live.items()
        for name, row in rows.items()
    }
    for step in steps:
        if step.entry is not None:
            with _naming(step.entry):
                ids[step.kind.collection, step.name] = await _write(changes, step, step.entry, ids)
    deleted = [step for step in steps if step.action == CATALOG_ACTION_DELETE]
    # Together, as a feature and those below it have to go.
    for kind, together in groupby(deleted, lambda step: step.kind):
        await _delete(changes, kind, list(together))


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
    old = await _present(changes, kind, step.row)
    target: Any = kind.codec.decode(old)
    for name in (*kind.settable, *(link.field for link in kind.links), "deleted_time"):
        target.ClearField(name)
    target.is_deleted = False
    target.MergeFrom(message)
    row = await changes.update(kind.resource, old, kind.codec.replaced(old, target))
    if step.action == CATALOG_ACTION_RESTORE and _is_initial(new := kind.codec.encode(message)):
        # What comes back is not initial where another one is, until it is made so.
        row = await changes.update(kind.resource, row, {**row, INITIAL: new[INITIAL]})
    return ObjectId(row["_id"])


async def _delete(changes: Changes, kind: Kind, steps: Sequence[Step]) -> None:
    rows = [await _present(changes, kind, step.row) for step in steps if step.row is not None]
    try:
        await changes.delete(kind.resource, rows)
    except DomainError as error:
        names = ", ".join(step.name for step in steps[:MAX_NAMED])
        text = f"{kind.collection} that the document leaves out ({names}): {error.message}"
        raise DomainError(error.reason, text, error.metadata) from error


async def _present(changes: Changes, kind: Kind, row: Document) -> Document:
    """The row as it is by now: a step before may have had it give way as the initial one."""
    return (await changes.get(kind.resource, [row["_id"]]))[0] if kind in WITH_INITIAL else row


def _is_initial(row: Document | None) -> bool:
    return row is not None and bool(row.get(INITIAL))


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
