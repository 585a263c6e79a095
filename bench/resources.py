"""Rows through the resource engine: a page far down over the first, and both over bare finds."""

import itertools
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from bson import ObjectId
from google.protobuf.message import Message
from pymongo import DESCENDING, AsyncMongoClient, IndexModel, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from zaaz.credits.v1 import feature_usage_log_pb2 as pb
from zaaz.credits.v1.usage_service_pb2_grpc import UsageServiceStub

from bench.consume import call_all
from bench.pairs import Run, Sides
from bench.processes import SERVER_DATABASE, BenchError, Served
from bench.setting import Bench, Size, tell
from server.credits.feature_usage.resources import FEATURE_USAGE_LOGS
from server.kernel.clock import DAY_MS
from server.resources.table import collections

PAGE_ROWS = 100
DEEP_PAGE = Size(1_000, 10_000)
LOGS = Size(40_000, 100_000)
PAGES = Size(300, 600)
GETS = Size(3_000, 6_000)
WALK_ROWS = 1_000
"""On the way to a page far down, whose token is all that is wanted of the rows before it."""
INSERT_BATCH = 10_000
USERS, ENDPOINTS = 1_000, 50
RETENTION = timedelta(days=90)

Document = dict[str, Any]
Logs = AsyncCollection[Document]


async def make_logs(client: AsyncMongoClient[Document], count: int) -> Logs:
    """So many interactions, written straight into the server's collection.

    Its indexes are made anew afterwards, which is faster than keeping them on the way.
    """
    concern = WriteConcern(w=1, j=False)
    logs = client[SERVER_DATABASE].get_collection(
        FEATURE_USAGE_LOGS.collection, write_concern=concern
    )
    await logs.drop_indexes()
    documents = _documents(count)
    while batch := list(itertools.islice(documents, INSERT_BATCH)):
        await logs.insert_many(batch, ordered=False)
    (declared,) = collections(FEATURE_USAGE_LOGS)
    definitions = [index.definition() for index in declared.indexes]
    await logs.create_indexes([IndexModel(list(d.pop("key").items()), **d) for d in definitions])
    return logs


def _documents(count: int) -> Iterator[Document]:
    """As the server writes them, a few of a user at a time; the newest comes first."""
    chance = random.Random(count)
    users = [ObjectId() for _ in range(USERS)]
    endpoints = [(ObjectId(), f"chat.{number}") for number in range(ENDPOINTS)]
    now = datetime.now(UTC)
    for number in range(count):
        endpoint_id, endpoint = chance.choice(endpoints)
        moment = now - timedelta(milliseconds=number * DAY_MS // count)
        yield {
            "_id": ObjectId(chance.randbytes(12)),
            "client_id": "local",
            "user_id": chance.choice(users),
            "email": "somebody@example.com",
            "usage_key": f"chat-{number}",
            "feature_endpoint_id": endpoint_id,
            "feature_endpoint": endpoint,
            "endpoint": "/v1/chat",
            "method": "POST",
            "code": chance.choice((200, 200, 200, 429, 500)),
            "status": chance.choice((1, 1, 1, 2)),
            "type": "chat",
            "payload": '{"messages":[{"role":"user","content":"[redacted]"}],"max_tokens":500}',
            "truncated_parts": [],
            "is_deleted": False,
            "occurred_time": moment,
            "created_time": moment,
            "expires_time": now + RETENTION,
        }


class Lists:
    """ListFeatureUsageLogs, always the page after `token`."""

    def __init__(self, channel: grpc.aio.Channel, served: Served, token: str = "") -> None:
        self._stub: Any = UsageServiceStub(channel)
        self._metadata = served.metadata
        self._token = token

    async def prepare(self, operations: int) -> Run:
        """Asks for the page once, which has to be full."""
        request = pb.ListFeatureUsageLogsRequest(page_size=PAGE_ROWS, page_token=self._token)
        page = await self.list(request)
        if len(page.feature_usage_logs) != PAGE_ROWS:
            raise BenchError(f"the page has {len(page.feature_usage_logs)} rows")
        return lambda: call_all(self.list, [request] * operations)

    async def list(self, request: pb.ListFeatureUsageLogsRequest) -> Any:
        return await self._stub.ListFeatureUsageLogs(request, metadata=self._metadata)

    async def token_after(self, rows: int) -> str:
        """What continues the list after so many rows: a page's size is no part of its token."""
        token = ""
        while rows:
            size = min(WALK_ROWS, rows)
            request = pb.ListFeatureUsageLogsRequest(page_size=size, page_token=token)
            page = await self.list(request)
            token = page.next_page_token
            rows -= len(page.feature_usage_logs)
        return token


class Finds:
    """The baseline: the driver's find of the same rows, by this process itself."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    async def prepare(self, operations: int) -> Run:
        """Nothing but the count."""
        return lambda: call_all(self._find, range(operations))

    async def _find(self, _: int) -> None:
        newest = [("occurred_time", DESCENDING), ("_id", DESCENDING)]
        found = self._logs.find(sort=newest, limit=PAGE_ROWS, batch_size=PAGE_ROWS)
        if len(await found.to_list()) != PAGE_ROWS:
            raise BenchError("the find has too few rows")


class Gets:
    """GetFeatureUsageLog of rows taken at random."""

    def __init__(self, channel: grpc.aio.Channel, served: Served, ids: Sequence[ObjectId]) -> None:
        self._stub: Any = UsageServiceStub(channel)
        self._metadata = served.metadata
        self._ids = ids
        self._random = random.Random(len(ids))

    async def prepare(self, operations: int) -> Run:
        """Builds the run's requests."""
        taken = self._random.choices(self._ids, k=operations)
        requests = [pb.GetFeatureUsageLogRequest(id=str(row_id)) for row_id in taken]
        return lambda: call_all(self._get, requests)

    async def _get(self, request: Message) -> None:
        await self._stub.GetFeatureUsageLog(request, metadata=self._metadata)


class FindOnes:
    """The baseline: the driver's find of one row by its id."""

    def __init__(self, logs: Logs, ids: Sequence[ObjectId]) -> None:
        self._logs = logs
        self._ids = ids
        self._random = random.Random(len(ids))

    async def prepare(self, operations: int) -> Run:
        """Takes the run's ids."""
        return lambda: call_all(self._find, self._random.choices(self._ids, k=operations))

    async def _find(self, row_id: ObjectId) -> None:
        if await self._logs.find_one({"_id": row_id}) is None:
            raise BenchError(f"no row {row_id}")


async def some_ids(logs: Logs, count: int) -> list[ObjectId]:
    """The ids of so many rows."""
    return [row["_id"] async for row in logs.find({}, {"_id": 1}, limit=count)]


@asynccontextmanager
async def _logs(bench: Bench, count: int) -> AsyncIterator[Logs]:
    async with AsyncMongoClient[Document](bench.served.mongo_url) as client:
        started = time.perf_counter()
        logs = await make_logs(client, count)
        tell(f"{count:,} interactions made in {time.perf_counter() - started:.1f} s")
        yield logs


@asynccontextmanager
async def deep_page(bench: Bench) -> AsyncIterator[Sides]:
    """A page far down over the first."""
    page = bench.plan.operations(DEEP_PAGE)
    async with _logs(bench, page * PAGE_ROWS):
        first = Lists(bench.channel, bench.served)
        token = await first.token_after((page - 1) * PAGE_ROWS)
        deep = Lists(bench.channel, bench.served, token)
        count = bench.plan.operations(PAGES)
        yield Sides(deep, first, (count, count))


@asynccontextmanager
async def pages(bench: Bench) -> AsyncIterator[Sides]:
    """Pages over finds."""
    async with _logs(bench, bench.plan.size(LOGS)) as logs:
        count = bench.plan.operations(PAGES)
        yield Sides(Lists(bench.channel, bench.served), Finds(logs), (count, count))


@asynccontextmanager
async def gets(bench: Bench) -> AsyncIterator[Sides]:
    """Single rows over finds of them."""
    async with _logs(bench, bench.plan.size(LOGS)) as logs:
        count = bench.plan.operations(GETS)
        ids = await some_ids(logs, bench.plan.size(GETS))
        yield Sides(Gets(bench.channel, bench.served, ids), FindOnes(logs, ids), (count, count))
