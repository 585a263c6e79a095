"""One row is initial, as soon as there is any: the first by itself, then whichever is made so."""

from collections.abc import Mapping
from typing import Any, Final

from bson import ObjectId

from server.kernel.errors import DomainError, Reason
from server.resources.changes import Changes
from server.resources.model import Document, Resource

_LIVE: Final = {"is_deleted": False}
_INITIAL: Final = {**_LIVE, "is_initial": True}


async def keep_initial(
    changes: Changes,
    collection: str,
    within: Mapping[str, Any],
    new: Document | None,
    old: Document | None,
) -> None:
    """For a guard: one live row of those that match `within` is initial, and no two.

    A row that is made initial takes it from the former. INITIAL_REQUIRED, when all is done, if
    other live rows are left without.
    """
    resource = changes.declared(collection)
    was_live = old is not None and not old["is_deleted"]
    if new is not None and not new["is_deleted"]:
        others = {**within, **_INITIAL, "_id": {"$ne": new["_id"]}}
        formers = await changes.find(resource, others, limit=1)
        if not was_live:
            # What a deleted row was says nothing of what it comes back as.
            asked = old is None and new.get("is_initial", False)
            new["is_initial"] = asked or not formers
        await _give_way(changes, resource, formers, new, comes=not was_live)
    if old is not None and was_live and old.get("is_initial", False):
        key = ("initial", collection, *within.values())
        changes.at_end(key, _Required(resource, within, old["_id"]))


async def _give_way(
    changes: Changes, resource: Resource, formers: list[Document], new: Document, *, comes: bool
) -> None:
    for former in formers:
        if new.get("is_initial", False):
            # Written first: the index knows one initial row at a time.
            await changes.update(resource, former, {**former, "is_initial": False})
        elif comes:
            # Whoever takes it away at the same time has to see that others are left.
            await changes.rely_on(resource.collection, [former["_id"]])


class _Required:
    """An ending: INITIAL_REQUIRED if the row has left live ones without an initial one."""

    def __init__(self, resource: Resource, within: Mapping[str, Any], row_id: ObjectId) -> None:
        self._resource = resource
        self._within = within
        self._row_id = row_id

    async def __call__(self, changes: Changes) -> None:
        if await changes.find(self._resource, {**self._within, **_INITIAL}, limit=1):
            return
        if await changes.find(self._resource, {**self._within, **_LIVE}, limit=1):
            raise DomainError(
                Reason.INITIAL_REQUIRED,
                "one has to be initial: make another one so first",
                {"id": self._row_id},
            )
