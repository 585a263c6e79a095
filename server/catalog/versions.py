"""From when a new endpoint may be in force."""

from typing import Any, Final

from server.catalog.marks import mark_changed
from server.kernel.errors import field_invalid
from server.resources.changes import Changes

HISTORIES: Final = "feature_endpoint_histories"

Document = dict[str, Any]


async def guard_endpoint(changes: Changes, new: Document | None, old: Document | None) -> None:
    """Marks the change. FIELD_INVALID for a new one that begins in the time of a namesake.

    What was billed by one that is deleted stays as it was: the next begins after it.
    """
    if new is not None and old is None and changes.effective < changes.now:
        ended = {"value": new["value"], "is_deleted": True}
        # Other rows of a deletion unset what was set ahead.
        at_once = {"$expr": {"$eq": ["$effective_time", "$created_time"]}}
        query = {**ended, **at_once, "effective_time": {"$gt": changes.effective}}
        if await changes.tx.find(HISTORIES, query, limit=1):
            raise field_invalid("effective_time", "is before the end of one that was deleted")
    await mark_changed(changes, new, old)
