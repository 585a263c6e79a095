"""What a page costs does not depend on how far down it is: by the database's own account."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from zaaz.credits.v1 import feature_usage_log_pb2 as pb

from server.credits.feature_usage.resources import FEATURE_USAGE_LOGS
from server.credits.feature_usage.store import FeatureUsageStore
from server.kernel.clock import system_clock
from server.kernel.paging import PageTokens
from server.mongo.database import Database
from server.resources.engine import Resources
from server.resources.table import collections
from tests.feature_usage.test_store import usage
from tests.serving import SECRET

ROWS, PAGE_ROWS = 600, 20
LOGS = FEATURE_USAGE_LOGS.collection


@pytest.fixture
async def logs(database: Database) -> AsyncIterator[Resources]:
    """600 interactions of one client, two of each moment, and the profiler on."""
    await database.prepare(collections(FEATURE_USAGE_LOGS))
    rows = [usage(200)._replace(occurred_ms=number // 2) for number in range(ROWS)]
    await FeatureUsageStore(database).insert(rows, 1)
    commands = database.collection(LOGS).database
    await commands.command({"profile": 2})
    yield Resources(database, system_clock, PageTokens(SECRET), [FEATURE_USAGE_LOGS])
    await commands.command({"profile": 0})


async def examined(database: Database) -> list[tuple[int, int]]:
    """Keys and documents that each find of the list so far has looked at."""
    query = {"op": "query", "command.find": LOGS}
    found: list[dict[str, Any]] = await database.collection("system.profile").find(query).to_list()
    return [(entry["keysExamined"], entry["docsExamined"]) for entry in found]


@pytest.mark.parametrize("within", [{}, {"client_id": "tests"}], ids=str)
@pytest.mark.parametrize("order", ["", "occurred_time", "created_time desc"])
async def test_the_last_page_looks_at_no_more_rows_than_the_first(
    logs: Resources, database: Database, within: dict[str, str], order: str
) -> None:
    request = pb.ListFeatureUsageLogsRequest(page_size=PAGE_ROWS, order_by=order)
    seen: set[str] = set()
    for _ in range(ROWS // PAGE_ROWS):
        page = await logs.page(FEATURE_USAGE_LOGS, request, within)
        seen |= {row.id for row in page.messages}
        request.page_token = page.next_page_token
    assert len(seen) == ROWS
    assert not request.page_token
    costs = await examined(database)
    assert len(costs) >= ROWS // PAGE_ROWS
    assert max(keys for keys, _ in costs) <= PAGE_ROWS + 2
    assert max(documents for _, documents in costs) <= PAGE_ROWS + 1
