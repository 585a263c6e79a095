"""Reading rows: one, or a page of a list, with references filled in by the same query."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from bson import ObjectId

from server.kernel.clock import Clock
from server.kernel.errors import Reason, refused
from server.kernel.paging import PageTokens, page_size
from server.mongo.database import Database
from server.mongo.errors import reachable
from server.resources.fields import date
from server.resources.filter import begins_with, parse_filter
from server.resources.model import Document
from server.resources.order import parse_order
from server.resources.schedule import fold
from server.resources.table import EITHER, Table

MAX_PAGE_SIZE: Final = 1_000
MAX_PAGE_BYTES: Final = 3 * 1024 * 1024
"""A page of larger rows has fewer of them: a client takes 4 MiB by default."""

MAX_TOTAL_SIZE: Final = 10_000
"""A count ends here: counting a million rows costs as much as a hundred pages of them."""


class Page(NamedTuple):
    """Messages, the token of the next page ("" after the last), and the total size if asked for."""

    messages: list[Any]
    next_page_token: str
    total_size: int


class Reader:
    """Reads outside of transactions."""

    def __init__(self, database: Database, clock: Clock, tokens: PageTokens) -> None:
        self._database = database
        self._clock = clock
        self._tokens = tokens

    async def get(self, table: Table, row_id: ObjectId, expand: Sequence[str] = ()) -> Any:
        """The row's message, None when there is none."""
        if expand:
            rows = await self._find(table, {"_id": row_id}, {"_id": 1}, 1, expand)
            return self._decode(table, rows[0], expand) if rows else None
        with reachable():
            row = await self._database.collection(table.name).find_one({"_id": row_id})
        return None if row is None else self._decode(table, row)

    async def page(self, table: Table, request: Any, within: Mapping[str, Any]) -> Page:
        """What the List request asks for, of the rows that `within` matches."""
        order = parse_order(request.order_by, table.sortable) if request.order_by else table.order
        query, expand = _query(table, request, within), getattr(request, "expand", ())
        bound = f"{request.DESCRIPTOR.full_name}\0{order.sort}\0{query}"
        cursor = self._tokens.read(bound, request.page_token)
        size = page_size(request.page_size, MAX_PAGE_SIZE)
        rows: list[Document] = []
        for stretch in order.after(cursor) if cursor else [{}]:
            # One more than the page says whether there is a next one.
            wanted, missing = {"$and": [query, stretch]}, size + 1 - len(rows)
            if missing:
                rows += await self._find(table, wanted, order.sort, missing, expand)
        messages = _fitting(self._decode(table, row, expand) for row in rows[:size])
        follows = rows[len(messages) - 1 :][:2]
        last = order.cursor(*follows) if len(follows) > 1 else None
        total = 0
        if request.with_total_size:
            with reachable():
                collection = self._database.collection(table.name)
                total = await collection.count_documents(query, limit=MAX_TOTAL_SIZE)
        return Page(messages, self._tokens.next(bound, last), total)

    async def _find(
        self, table: Table, query: Document, sort: Document, limit: int, expand: Sequence[str]
    ) -> list[Document]:
        collection = self._database.collection(table.name)
        joins = [_join(table, name) for name in expand]
        with reachable():
            if not joins:
                found = collection.find(query, sort=sort, limit=limit, batch_size=limit)
                return await found.to_list()
            stages: list[Document] = [{"$match": query}, {"$sort": sort}, {"$limit": limit}, *joins]
            return await (await collection.aggregate(stages)).to_list()

    def _decode(self, table: Table, row: Document, expand: Sequence[str] = ()) -> Any:
        """As of now: what is due is in force, in the rows referred to as well."""
        for name in expand:
            row[name] = self._due(row[name][0]) if row[name] else None
        return table.codec.decode(self._due(row))

    def _due(self, row: Document) -> Document:
        return fold(row, date(self._clock())) if "scheduled" in row else row


def _query(table: Table, request: Any, within: Mapping[str, Any]) -> Document:
    search = getattr(request, "search", "").casefold()
    live = {} if table.resource.read_only else {"is_deleted": False}
    if live and request.show_deleted:
        live = {"is_deleted": EITHER}
    found = {"search_keys": {"$elemMatch": begins_with(search)}} if search else {}
    asked = parse_filter(request.filter, table.filterable)
    return {"$and": [part for part in (within, live, asked, found) if part] or [{}]}


def _join(table: Table, name: str) -> Document:
    reference = table.expand.get(name)
    if reference is None:
        raise refused(Reason.EXPAND_INVALID, "expand", f"no reference is {name}", {"path": name})
    source = {"from": reference.collection, "localField": reference.field, "foreignField": "_id"}
    return {"$lookup": {**source, "as": name}}


def _fitting(messages: Iterable[Any]) -> list[Any]:
    """As many as fit a page's bytes, at least one; hardly more than those are made."""
    fitting: list[Any] = []
    left = MAX_PAGE_BYTES
    for message in messages:
        left -= message.ByteSize()
        if left < 0 and fitting:
            break
        fitting.append(message)
    return fitting
