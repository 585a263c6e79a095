"""The mark that every change of the catalog leaves, so that its readers know."""

from typing import Any, Final

from server.mongo.schema import Collection
from server.resources.changes import Changes

REVISIONS: Final = "catalog_revisions"

SLOTS: Final = 16
"""Rows that count changes, so that two changes at once seldom write the same one."""

COLLECTIONS = (Collection(REVISIONS),)

Document = dict[str, Any]


async def mark_changed(changes: Changes, new: Document | None, old: Document | None) -> None:
    """A guard: counts a change of the row, in the transaction that makes it."""
    row = new or old or {}
    slot = row["_id"].binary[-1] % SLOTS
    increment = {"q": {"_id": slot}, "u": {"$inc": {"count": 1}}, "upsert": True}
    await changes.tx.update(REVISIONS, [increment])
