"""Features form a tree: no circles, and only so deep, whoever moves what at the same time."""

from typing import Any, Final

from bson import ObjectId

from server.catalog.endpoints import MAX_DEPTH
from server.catalog.marks import mark_changed
from server.catalog.packages.history import keep_history
from server.catalog.packages.parts import FEATURES as PART
from server.kernel.errors import DomainError, Reason, field_invalid
from server.resources.changes import Changes

FEATURES: Final = "features"

MAX_BELOW: Final = 5_000
"""Features of one level below one that is moved."""

Document = dict[str, Any]


async def guard_feature(changes: Changes, new: Document | None, old: Document | None) -> None:
    """Keeps the tree a tree, has packages with it remembered as they are, marks the change.

    CYCLE; FIELD_INVALID when it is too deep, or in too many packages.
    """
    if new is not None and _is_placed(new, old):
        await _check_place(changes, new, is_new=old is None)
    await keep_history(changes, PART, new, old)
    await mark_changed(changes, new, old)


def _is_placed(new: Document, old: Document | None) -> bool:
    """Whether it comes, comes back or moves."""
    if old is None or new["is_deleted"]:
        return old is None
    return bool(old["is_deleted"]) or new.get("parent_id") != old.get("parent_id")


async def _check_place(changes: Changes, feature: Document, *, is_new: bool) -> None:
    above = await _above(changes, feature["_id"], feature.get("parent_id"))
    # All of them, so that of two moves that rest on one another's rows as they were one is lost,
    # and sees the other when it is tried again. The nearest is the engine's to rely on.
    await changes.rely_on(FEATURES, above[1:])
    below = 0 if is_new else await _levels_below(changes, feature["_id"], MAX_DEPTH - len(above))
    if len(above) + 1 + below > MAX_DEPTH:
        raise _too_deep()


async def _above(
    changes: Changes, feature_id: ObjectId, parent_id: ObjectId | None
) -> list[ObjectId]:
    """The ids of the features above, the nearest first."""
    ids: list[ObjectId] = []
    while parent_id is not None:
        if parent_id == feature_id:
            raise DomainError(
                Reason.CYCLE,
                "a feature cannot be a part of itself",
                {"field": "parent_id", "id": feature_id},
            )
        if len(ids) == MAX_DEPTH:
            raise _too_deep()
        rows = await changes.tx.find(FEATURES, {"_id": parent_id}, limit=1)
        if not rows:
            # Whether a reference is good is the engine's affair.
            break
        ids.append(parent_id)
        parent_id = rows[0].get("parent_id")
    return ids


async def _levels_below(changes: Changes, feature_id: ObjectId, limit: int) -> int:
    """How many levels of features are below; not counted beyond `limit`."""
    level, levels = [feature_id], 0
    while levels < limit:
        query = {"is_deleted": False, "parent_id": {"$in": level}}
        rows = await changes.tx.find(FEATURES, query, limit=MAX_BELOW + 1)
        if not rows:
            break
        if len(rows) > MAX_BELOW:
            raise field_invalid("feature.parent_id", f"more than {MAX_BELOW} features are below")
        level = [row["_id"] for row in rows]
        levels += 1
    return levels


def _too_deep() -> DomainError:
    return field_invalid("feature.parent_id", f"features may be {MAX_DEPTH} levels deep")
