"""Rows on their way into the database: durable or told of, and written once."""

import pytest
from bson import ObjectId
from pymongo.errors import BulkWriteError

from server.credits.feature_usage.model import FeatureUsage
from server.credits.feature_usage.resources import FEATURE_USAGE_LOGS
from server.credits.feature_usage.store import FeatureUsageStore
from server.mongo.database import Database
from server.resources.table import collections
from tests.serving import ManualClock

LOGS = FEATURE_USAGE_LOGS.collection


@pytest.fixture
async def store(database: Database) -> FeatureUsageStore:
    await database.prepare(collections(FEATURE_USAGE_LOGS))
    return FeatureUsageStore(database)


def usage(code: int, row_id: ObjectId | None = None) -> FeatureUsage:
    return FeatureUsage(
        id=row_id or ObjectId(),
        client_id="tests",
        user_id=ObjectId(),
        email="",
        usage_key="key",
        feature_endpoint_id=ObjectId(),
        feature_endpoint="chat.send",
        endpoint="/v1/chat",
        method="POST",
        code=code,
        status=1,
        type="",
        parts={"payload": '{"a.b":{"$c":"\\u0000"}}'},
        truncated_parts=("payload",),
        occurred_ms=ManualClock().now_ms,
    )


async def codes(database: Database) -> list[int]:
    return sorted([row["code"] async for row in database.collection(LOGS).find()])


async def test_rows_that_are_there_stay_and_the_rest_is_written(
    store: FeatureUsageStore, database: Database
) -> None:
    known = usage(200)
    await store.insert([known, usage(201)], 1)
    await store.insert([usage(202), known._replace(code=500), usage(203)], 2)
    assert await codes(database) == [200, 201, 202, 203]


async def test_a_row_that_cannot_be_written_is_not_passed_over(
    store: FeatureUsageStore, database: Database
) -> None:
    known = usage(200)
    await store.insert([known], 1)
    refusing = {"collMod": LOGS, "validator": {"code": {"$lt": 500}}}
    await database.collection(LOGS).database.command(refusing)
    with pytest.raises(BulkWriteError):
        await store.insert([known, usage(500), usage(201)], 2)
    assert await codes(database) == [200, 201]


@pytest.mark.parametrize(
    ("query", "sort"),
    [
        ({}, "occurred_time"),
        ({"client_id": "tests"}, "occurred_time"),
        ({"user_id": ObjectId()}, "occurred_time"),
        ({"status": 2}, "occurred_time"),
        ({}, "created_time"),
    ],
)
async def test_a_page_is_one_walk_along_an_index(
    store: FeatureUsageStore, database: Database, query: dict[str, object], sort: str
) -> None:
    await store.insert([usage(code) for code in range(20)], 1)
    found = database.collection(LOGS).find(query, sort=[(sort, -1), ("_id", -1)], limit=5)
    plan = str((await found.explain())["queryPlanner"]["winningPlan"])
    assert "IXSCAN" in plan
    assert "'SORT'" not in plan
    assert "COLLSCAN" not in plan
