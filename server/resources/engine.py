"""The engine: the declared resources on one database, how they are read and how they are changed.

run     changes in one transaction under a request_id, tried again while it is lost
get     one row, with references filled in
page    a page of rows
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, nullcontext
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeVar

from bson import ObjectId
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from google.protobuf.message import Message
from pymongo.asynchronous.command_cursor import AsyncCommandCursor
from pymongo.asynchronous.cursor import AsyncCursor

from server.kernel.clock import Clock
from server.kernel.errors import DomainError, Reason, refused
from server.kernel.paging import PageTokens, page_size
from server.kernel.principal import current_principal
from server.mongo.database import Database
from server.mongo.errors import DatabaseUnavailable, TransactionLost, reachable
from server.resources.changes import Changes, not_found
from server.resources.model import Document, Resource
from server.resources.queries import Order, begins_with, parse_filter, parse_order
from server.resources.schedule import fold
from server.resources.table import EITHER, REQUESTS, Table

MAX_TRIES: Final = 5
"""Transactions lost to others before their caller is told CONTENTION."""

BACKOFF_SECONDS: Final = 0.01
"""The longest first wait before trying again; it doubles each time."""

REQUEST_DAYS: Final = 30
"""For how long a request_id is known."""

ANY_ROW: Final[Mapping[str, Any]] = {}
"""Matches every row."""

MAX_PAGE_SIZE: Final = 1_000
MAX_PAGE_BYTES: Final = 3 * 1024 * 1024
"""A page of larger rows has fewer of them: a client takes 4 MiB by default."""

MAX_JOINED_ROWS: Final = 100
"""Rows with what is filled in that are read ahead: a page of 1,000 has more than one answer."""

MAX_TOTAL_SIZE: Final = 10_000
"""A count ends here: counting a million rows costs as much as a hundred pages of them."""

# Most of a row's times are only handed on, and making datetimes of them takes half of the reading.
_TIMES_IN_MS: Final[CodecOptions[Document]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_MS
)
_Answer = TypeVar("_Answer", bound=Message)
Work = Callable[[Changes], Awaitable[_Answer]]
Refresh = Callable[[], Awaitable[None]]


class Page(NamedTuple):
    """Messages, the token of the next page ("" after the last), and the total size if asked for."""

    messages: list[Any]
    next_page_token: str
    total_size: int


class Resources:
    """`declared` are all resources of the server: who refers to whom is read from them."""

    def __init__(
        self, database: Database, clock: Clock, tokens: PageTokens, declared: Iterable[Resource]
    ) -> None:
        self._database = database
        self._clock = clock
        self._tokens = tokens
        known = tuple(declared)
        histories = [one.history.resource() for one in known if one.history is not None]
        self._tables = {one.collection: Table(one, known) for one in (*known, *histories)}
        self._stored = {
            name: database.collection(name).with_options(_TIMES_IN_MS) for name in self._tables
        }
        self._turn = asyncio.Lock()
        self._listeners: list[tuple[frozenset[str], Refresh]] = []

    def table(self, resource: Resource) -> Table:
        """What is worked out of a declared resource."""
        return self._tables[resource.collection]

    def on_change(self, refresh: Refresh, *declared: Resource) -> None:
        """Call `refresh` after a change of these resources, before the caller is answered."""
        self._listeners.append((frozenset(one.collection for one in declared), refresh))

    async def run(
        self, request: Any, answer: type[_Answer], work: Work[_Answer], author: str = ""
    ) -> _Answer:
        """Do `work` in one transaction, once for the request's request_id, and give its answer.

        `work` runs again when the transaction is lost. `author` is a client_id, the caller's
        unless given. Raises what `work` raises, REQUEST_ID_REUSED, CONTENTION, and
        DatabaseUnavailable, also when nobody knows whether a request without an id was stored.
        """
        author = author or current_principal().client_id
        for tries in range(MAX_TRIES):
            try:
                # Those of this process who have lost once try again one by one.
                async with self._turn if tries else nullcontext():
                    made, changed = await self._attempt(request, answer, work, author)
            except TransactionLost as lost:
                if lost.kind == "unknown" and not request.request_id:
                    raise DatabaseUnavailable(str(lost)) from lost
                await asyncio.sleep(random.uniform(0, BACKOFF_SECONDS * 2**tries))
                continue
            for collections, refresh in self._listeners:
                if not collections.isdisjoint(changed):
                    await refresh()
            return made
        message = "others kept changing the same rows"
        raise DomainError(Reason.CONTENTION, message, {"attempts": MAX_TRIES})

    async def get(self, resource: Resource, row_id: ObjectId, expand: Sequence[str] = ()) -> Any:
        """The row's message, deleted or not; RESOURCE_NOT_FOUND, EXPAND_INVALID."""
        table = self.table(resource)
        async with aclosing(self._find(table, {"_id": row_id}, {}, 1, expand)) as rows:
            async for row in rows:
                return self._decode(table, row, expand)
        raise not_found(resource, row_id)

    async def page(
        self, resource: Resource, request: Any, within: Mapping[str, Any] = ANY_ROW
    ) -> Page:
        """The page that a List request asks for, of the rows that `within` matches.

        Raises FILTER_INVALID, ORDER_BY_INVALID, EXPAND_INVALID and PAGE_TOKEN_INVALID.
        """
        table = self.table(resource)
        order = parse_order(request.order_by, table.sortable) if request.order_by else table.order
        query, expand = _query(table, request, within), getattr(request, "expand", ())
        bound = f"{request.DESCRIPTOR.full_name}\0{order.sort}\0{query}"
        cursor = self._tokens.read(bound, request.page_token)
        size = page_size(request.page_size, MAX_PAGE_SIZE)
        messages: list[Any] = []
        left, last, following = MAX_PAGE_BYTES, ANY_ROW, None
        # One more than the page says whether there is a next one.
        found = self._walk(table, query, order, cursor, size + 1, expand)
        async with aclosing(found) as rows:
            async for row in rows:
                message = self._decode(table, row, expand)
                left -= message.ByteSize()
                if messages and (left < 0 or len(messages) == size):
                    following = order.cursor(last, row)
                    break
                messages.append(message)
                last = row
        total = 0
        if request.with_total_size:
            with reachable():
                stored = self._stored[table.name]
                total = await stored.count_documents(query, limit=MAX_TOTAL_SIZE)
        return Page(messages, self._tokens.next(bound, following), total)

    async def _attempt(
        self, request: Any, answer: type[_Answer], work: Work[_Answer], author: str
    ) -> tuple[_Answer, Iterable[str]]:
        """The answer, the first one for a replay, and the collections that were changed."""
        key = {"_id": f"{author}\0{request.request_id}"}
        payload = request.SerializeToString(deterministic=True)
        method = request.DESCRIPTOR.full_name
        row = {**key, "method": method, "fingerprint": sha256(payload).digest()}
        now_ms, reason = self._clock(), getattr(request, "reason", "")
        async with self._database.transaction() as tx:
            known = await tx.find(REQUESTS, key) if request.request_id else []
            if known:
                if {**known[0], **row} != known[0]:
                    metadata = {"request_id": request.request_id}
                    text = "was used before with another payload"
                    raise refused(Reason.REQUEST_ID_REUSED, "request_id", text, metadata)
                return answer.FromString(known[0]["response"]), known[0]["changed"]
            changes = Changes(tx, self._tables, now_ms, author, reason)
            made = await work(changes)
            await changes.finish()
            if request.request_id:
                row["response"] = made.SerializeToString()
                row["changed"] = sorted(changes.changed)
                row["expires_time"] = changes.now + timedelta(days=REQUEST_DAYS)
                await tx.insert(REQUESTS, [row])
        return made, changes.changed

    async def _walk(
        self,
        table: Table,
        query: Document,
        order: Order,
        cursor: Sequence[Any] | None,
        limit: int,
        expand: Sequence[str],
    ) -> AsyncGenerator[Document, None]:
        """The rows from the cursor on, in order."""
        for stretch in order.after(cursor) if cursor else [{}]:
            wanted = {"$and": [query, stretch]}
            async with aclosing(self._find(table, wanted, order.sort, limit, expand)) as rows:
                async for row in rows:
                    limit -= 1
                    yield row
            if not limit:
                break

    async def _find(
        self, table: Table, query: Document, sort: Document, limit: int, expand: Sequence[str]
    ) -> AsyncGenerator[Document, None]:
        """The rows that match, read as they are asked for: each may be large."""
        collection = self._stored[table.name]
        joins = [*table.collected, *(_join(table, name) for name in expand)]
        asked = {"$match": query, "$sort": sort, "$limit": limit}
        stages = [{name: value} for name, value in asked.items() if value]
        cursor: AsyncCursor[Document] | AsyncCommandCursor[Document]
        with reachable():
            if joins:
                size = min(limit, MAX_JOINED_ROWS)
                cursor = await collection.aggregate([*stages, *joins], batchSize=size)
            else:
                cursor = collection.find(query, sort=sort or None, limit=limit, batch_size=limit)
            async with cursor:
                async for row in cursor:
                    yield row

    def _decode(self, table: Table, row: Document, expand: Sequence[str] = ()) -> Any:
        """As of now: what is due is in force, in the rows referred to as well."""
        for name in expand:
            row[name] = self._due(row[name][0]) if row[name] else None
        return table.codec.decode(self._due(row))

    def _due(self, row: Document) -> Document:
        return fold(row, DatetimeMS(self._clock())) if "scheduled" in row else row


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
