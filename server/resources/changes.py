"""Changes of rows within one transaction: the one way in which a resource's rows are written.

Each change brings the row (under its version), its history, what the declaration demands of it,
and the `guard` of the rows that it relies on.
"""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar, cast

from bson import ObjectId

from server.kernel.errors import DomainError, Reason, field_invalid, refused
from server.kernel.ids import new_id
from server.mongo.errors import TransactionLost
from server.mongo.transaction import Tx
from server.resources.fields import date
from server.resources.model import Document, Reference, Resource, Unique
from server.resources.schedule import fold, schedule
from server.resources.table import EITHER, Table

MAX_NAMED_REFERRERS: Final = 10

_Ending = TypeVar("_Ending", bound=Callable[["Changes"], Awaitable[None]])


class Changes:
    """An open transaction for rows; `now` is its moment. Rows that it gives back are as of then.

    `stamp` is on every history row; a guard may add to it. `effective`: from when a new row is
    in force, for its guard. `changed`: the collections that were written.

    Every method may raise TransactionLost and DatabaseUnavailable; let them pass.
    """

    def __init__(
        self, tx: Tx, tables: Mapping[str, Table], now_ms: int, client_id: str, reason: str
    ) -> None:
        self.tx = tx
        self.now = self.effective = date(now_ms)
        self.stamp: Document = {"client_id": client_id, "reason": reason}
        self.changed: set[str] = set()
        self._tables = tables
        self._endings: dict[Hashable, Callable[[Changes], Awaitable[None]]] = {}

    def at_end(self, key: Hashable, ending: _Ending) -> _Ending:
        """Call `ending` once all else is done, before the commit: once per key, the first given.

        Gives back the one that is called. What an ending asks for in turn is called after it.
        """
        self._endings.setdefault(key, ending)
        return cast("_Ending", self._endings[key])

    async def finish(self) -> None:
        """Calls the endings, in the order in which they came. Only `Resources` calls it."""
        while self._endings:
            ending = self._endings.pop(next(iter(self._endings)))
            await ending(self)

    def declared(self, collection: str) -> Resource:
        """The resource of a collection."""
        return self._tables[collection].resource

    async def find(
        self, resource: Resource, query: Mapping[str, Any], limit: int = 0
    ) -> list[Document]:
        """The rows that match, deleted ones too unless the query says otherwise."""
        rows = await self.tx.find(resource.collection, query, limit=limit)
        return [fold(row, self.now) for row in rows]

    async def get(self, resource: Resource, ids: Sequence[ObjectId]) -> list[Document]:
        """The rows of these ids in their order, deleted or not; RESOURCE_NOT_FOUND."""
        found = {row["_id"]: row for row in await self.find(resource, {"_id": {"$in": list(ids)}})}
        for row_id in ids:
            if row_id not in found:
                raise not_found(resource, row_id)
        return [found[row_id] for row_id in ids]

    async def rely_on(self, collection: str, ids: Iterable[ObjectId]) -> bool:
        """Whether all of these rows are live; whoever changes one of them loses to us, or we do."""
        bumps = [
            {"q": {"_id": row_id, "is_deleted": False}, "u": {"$inc": {"guard": 1}}}
            for row_id in dict.fromkeys(ids)
        ]
        return not bumps or await self.tx.update(collection, bumps) == len(bumps)

    async def create(
        self, resource: Resource, fields: Document, effective: datetime | None = None
    ) -> Document:
        """A new row of these fields; scheduled ones from `effective` on, which may be past."""
        table = self._tables[resource.collection]
        made = {"_id": new_id(), **fields, "is_deleted": False, "created_time": self.now}
        row = resource.normalize({**made, "updated_time": self.now})
        self.effective = effective or self.now
        await self._admit(table, row, None)
        stored = {**table.searched(row), "version": 1, "guard": 0}
        if self.effective > self.now:
            ahead = {name: stored.pop(name) for name in resource.scheduled if name in stored}
            stored = schedule(stored, self.effective, ahead)
        await self.tx.insert(table.name, [stored])
        await self._record(table, [row], self.effective)
        return stored

    async def update(
        self, resource: Resource, old: Document, new: Document, effective: datetime | None = None
    ) -> Document:
        """`old` as `new`, which is made from it as it will be at `effective`; no change, no write.

        Undoes a deletion too. FIELD_INVALID when `effective` is past, or ahead for other than
        scheduled fields.
        """
        table, at = self._tables[resource.collection], effective or self.now
        base, new = fold(old, at), resource.normalize(new)
        ahead = {n: new.get(n) for n in {**base, **new} if base.get(n) != new.get(n)}
        if at < self.now or (at > self.now and not ahead.keys() <= set(resource.scheduled)):
            scheduled = " and ".join(resource.scheduled) or "nothing"
            raise field_invalid("effective_time", f"only {scheduled} may be set ahead, none behind")
        if not ahead:
            return old
        await self._admit(table, new, base)
        row = new if at == self.now else schedule(old, at, ahead)
        (stored,) = await self._replace(table, [(old, row)])
        await self._record(table, [new], at)
        return stored

    async def delete(self, resource: Resource, rows: Sequence[Document]) -> list[Document]:
        """These rows put away, in their order; STILL_REFERENCED while live rows refer to them."""
        table = self._tables[resource.collection]
        pairs = [(row, self._deleted(row)) for row in rows if not row["is_deleted"]]
        await self._refuse_referred(table, [old["_id"] for old, _ in pairs], is_deleted=False)
        for old, new in pairs:
            await self._verify(resource, new, old)
        stored = {row["_id"]: row for row in await self._replace(table, pairs)}
        await self._record(table, [new for _, new in pairs], self.now)
        return [stored.get(row["_id"], row) for row in rows]

    async def purge(self, resource: Resource, row: Document) -> None:
        """The row removed for good; STILL_REFERENCED while any rows refer to it."""
        table = self._tables[resource.collection]
        await self._refuse_referred(table, [row["_id"]], is_deleted=EITHER)
        if resource.guard is not None:
            await resource.guard(self, None, row)
        await self.tx.delete(table.name, [{"_id": row["_id"]}])
        await self._record(table, [] if row["is_deleted"] else [self._deleted(row)], self.now)

    async def _admit(self, table: Table, new: Document, old: Document | None) -> None:
        """Refuse a new or changed row that breaks a rule, the database's included."""
        await self._verify(table.resource, new, old)
        for unique in table.resource.unique:
            await self._refuse_taken(table, unique, new)
        # A row that comes back relies on its references as a new one does.
        before = old if old is not None and not old["is_deleted"] else {}
        for reference in table.resource.references:
            known = _ids(before, reference)
            await self._refer(reference, [one for one in _ids(new, reference) if one not in known])

    async def _refer(self, reference: Reference, ids: Sequence[ObjectId]) -> None:
        """Rely on rows as on what is referred to; REFERENCE_NOT_FOUND names the first missing."""
        name, collection = reference.field, reference.collection
        if await self.rely_on(collection, ids):
            return
        query = {"_id": {"$in": list(ids)}, "is_deleted": False}
        found = {row["_id"] for row in await self.tx.find(collection, query)}
        missing = next(one for one in ids if one not in found)
        text = f"no live row of {collection} has the id {missing}"
        metadata = {"field": name, "id": missing}
        raise refused(Reason.REFERENCE_NOT_FOUND, name, text, metadata)

    async def _verify(self, resource: Resource, new: Document, old: Document | None) -> None:
        resource.check(new, old)
        if resource.guard is not None:
            await resource.guard(self, new, old)

    async def _refuse_taken(self, table: Table, unique: Unique, row: Document) -> None:
        """For the error's sake: that rows are unique is the index's to keep."""
        if any(row.get(name) != value for name, value in unique.where.items()):
            return
        same = {name: row.get(name) for name in unique.fields}
        query = {"is_deleted": False, **unique.where, **same, "_id": {"$ne": row["_id"]}}
        for taken in await self.tx.find(table.name, query, limit=1):
            field, text = unique.fields[0], f"{table.name}/{taken['_id']} has it"
            metadata = {"field": field, "id": taken["_id"]}
            raise refused(Reason.ALREADY_EXISTS, field, text, metadata)

    async def _refuse_referred(
        self, table: Table, ids: Sequence[ObjectId], is_deleted: object
    ) -> None:
        named: list[str] = []
        for collection, field in table.referrers if ids else ():
            query = {"is_deleted": is_deleted, field: {"$in": ids}, "_id": {"$nin": ids}}
            found = await self.tx.find(collection, query, limit=MAX_NAMED_REFERRERS)
            named += [f"{collection}/{row['_id']}" for row in found]
        if named:
            raise still_referenced(ids[0], named)

    async def _replace(
        self, table: Table, pairs: Sequence[tuple[Document, Document]]
    ) -> list[Document]:
        rows: list[Document] = []
        updates = []
        for old, new in pairs:
            later = {"version": old["version"] + 1, "updated_time": self.now}
            rows.append({**table.searched(new), **later})
            updates.append({"q": {"_id": old["_id"], "version": old["version"]}, "u": rows[-1]})
        if updates and await self.tx.update(table.name, updates) != len(updates):
            raise TransactionLost("conflict", f"a row of {table.name} has changed")
        return rows

    async def _record(self, table: Table, rows: Iterable[Document], at: datetime) -> None:
        self.changed.add(table.name)
        history = table.resource.history
        if history is None:
            return
        stamp = {**self.stamp, "effective_time": at, "created_time": self.now}
        versions = [
            {**table.version(row), **stamp, "_id": new_id(), history.field: row["_id"]}
            for row in rows
        ]
        if versions:
            await self.tx.insert(history.collection, versions)

    def _deleted(self, row: Document) -> Document:
        """What was to come is forgotten with it."""
        deleted = {**row, "is_deleted": True, "deleted_time": self.now}
        deleted.pop("scheduled", None)
        return deleted


def still_referenced(row_id: ObjectId, named: Sequence[str]) -> DomainError:
    """STILL_REFERENCED by the rows that are `named` as collection/id."""
    references = " ".join(named[:MAX_NAMED_REFERRERS])
    metadata = {"id": row_id, "references": references}
    return DomainError(Reason.STILL_REFERENCED, f"still referred to by {references}", metadata)


def _ids(row: Document, reference: Reference) -> Sequence[ObjectId]:
    """The ids that a reference's field holds."""
    held = row.get(reference.field, ())
    return [held] if isinstance(held, ObjectId) else held


def not_found(resource: Resource, row_id: object) -> DomainError:
    """RESOURCE_NOT_FOUND."""
    name = resource.collection
    metadata = {"resource": name, "id": row_id}
    return DomainError(Reason.RESOURCE_NOT_FOUND, f"{name} has no row {row_id}", metadata)
