"""The rules of packages and of what they are made of, within each change's transaction."""

from typing import Any, Final

from bson import ObjectId

from server.catalog.marks import mark_changed
from server.catalog.packages import parts
from server.catalog.packages.history import keep_history, snapshots
from server.catalog.packages.initial import keep_initial
from server.resources.changes import MAX_NAMED_REFERRERS, Changes, still_referenced

_WALLETS: Final = "user_wallets"

Document = dict[str, Any]


async def guard_package(changes: Changes, new: Document | None, old: Document | None) -> None:
    """One is initial; every change has its snapshot. INITIAL_REQUIRED, STILL_REFERENCED."""
    await keep_initial(changes, parts.PACKAGES, {}, new, old)
    if new is not None:
        new["history_id"] = snapshots(changes).of(new["_id"])
    elif old is not None:
        await _refuse_held(changes, "package_id", old["_id"])
        snapshots(changes).purged(old)
    await mark_changed(changes, new, old)


async def guard_plan(changes: Changes, new: Document | None, old: Document | None) -> None:
    """Packages with this plan have their snapshots. FIELD_INVALID, STILL_REFERENCED."""
    if new is None and old is not None:
        await _refuse_held(changes, "plan_id", old["_id"])
    await keep_history(changes, parts.PLANS, new, old)


async def guard_price(changes: Changes, new: Document | None, old: Document | None) -> None:
    """A package's plan: one is initial; the package has its snapshot. INITIAL_REQUIRED."""
    package_id = (new or old or {})["package_id"]
    await keep_initial(changes, parts.PLANS.joins, {"package_id": package_id}, new, old)
    await _guard_join(changes, parts.PLANS, new, old)


async def guard_included(changes: Changes, new: Document | None, old: Document | None) -> None:
    """A package's feature: the package has its snapshot."""
    await _guard_join(changes, parts.FEATURES, new, old)


async def _guard_join(
    changes: Changes, part: parts.Part, new: Document | None, old: Document | None
) -> None:
    row = new or old or {}
    snapshots(changes).of(row["package_id"])
    comes = new is not None and not new["is_deleted"] and (old is None or old["is_deleted"])
    if comes:
        await parts.refuse_one_more(changes, part, row[part.field])
    # Whoever changes the part at the same time has to see that it is this package's too.
    await changes.rely_on(part.collection, [row[part.field]])
    await mark_changed(changes, new, old)


async def _refuse_held(changes: Changes, field: str, row_id: ObjectId) -> None:
    """STILL_REFERENCED while any wallet has it."""
    # So that the index on those that have one serves.
    query = {field: {"$eq": row_id, "$type": "objectId"}}
    wallets = await changes.tx.find(_WALLETS, query, limit=MAX_NAMED_REFERRERS)
    if wallets:
        raise still_referenced(row_id, [f"{_WALLETS}/{wallet['_id']}" for wallet in wallets])
