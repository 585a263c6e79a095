"""The engine: the declared resources on one database, how they are read and how they are changed.

run     changes in one transaction under a request_id, tried again while it is lost
get     one row, with references filled in
page    a page of rows
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final, TypeVar

from bson import ObjectId
from google.protobuf.message import Message

from server.kernel.clock import Clock
from server.kernel.errors import DomainError, Reason, refused
from server.kernel.paging import PageTokens
from server.kernel.principal import current_principal
from server.mongo.database import Database
from server.mongo.errors import DatabaseUnavailable, TransactionLost
from server.resources.changes import Changes, not_found
from server.resources.model import Resource
from server.resources.reader import Page, Reader
from server.resources.table import REQUESTS, Table

MAX_TRIES: Final = 5
"""Transactions lost to others before their caller is told CONTENTION."""

BACKOFF_SECONDS: Final = 0.01
"""The longest first wait before trying again; it doubles each time."""

REQUEST_DAYS: Final = 30
"""For how long a request_id is known."""

ANY_ROW: Final[Mapping[str, Any]] = {}
"""Matches every row."""

_Answer = TypeVar("_Answer", bound=Message)
Work = Callable[[Changes], Awaitable[_Answer]]
Refresh = Callable[[], Awaitable[None]]


class Resources:
    """`declared` are all resources of the server: who refers to whom is read from them."""

    def __init__(
        self, database: Database, clock: Clock, tokens: PageTokens, declared: Iterable[Resource]
    ) -> None:
        self._database = database
        self._clock = clock
        self._reader = Reader(database, clock, tokens)
        known = tuple(declared)
        histories = [one.history.resource() for one in known if one.history is not None]
        self._tables = {one.collection: Table(one, known) for one in (*known, *histories)}
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
        message = await self._reader.get(self.table(resource), row_id, expand)
        if message is None:
            raise not_found(resource, row_id)
        return message

    async def page(
        self, resource: Resource, request: Any, within: Mapping[str, Any] = ANY_ROW
    ) -> Page:
        """The page that a List request asks for, of the rows that `within` matches.

        Raises FILTER_INVALID, ORDER_BY_INVALID, EXPAND_INVALID and PAGE_TOKEN_INVALID.
        """
        return await self._reader.page(self.table(resource), request, within)

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
            if request.request_id:
                row["response"] = made.SerializeToString()
                row["changed"] = sorted(changes.changed)
                row["expires_time"] = changes.now + timedelta(days=REQUEST_DAYS)
                await tx.insert(REQUESTS, [row])
        return made, changes.changed
