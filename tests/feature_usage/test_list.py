"""ListFeatureUsageLogs and GetFeatureUsageLog."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from bson import ObjectId
from zaaz.catalog.v1.feature_endpoint_pb2 import FeatureEndpoint
from zaaz.credits.v1 import feature_usage_log_pb2 as pb

from tests.feature_usage.interactions import (
    ALL_PARTS,
    interaction,
    json_value,
    keep,
    new_endpoint,
    row,
    rows,
    rows_of,
)
from tests.ledger.calls import refused
from tests.serving import ManualClock, Served, new_key, new_user
from tests.usage.partners import partner

HOUR_MS = 3_600_000


class Kept:
    """What one client has had kept: 12 rows of two users and two endpoints."""

    def __init__(self, client: Served, endpoints: list[FeatureEndpoint], now_ms: int) -> None:
        self.client = client
        self.endpoints = endpoints
        self.users = [new_user(), new_user()]
        self.now_ms = now_ms
        self.events = [self._event(number) for number in range(12)]

    def _event(self, number: int) -> pb.FeatureUsageEvent:
        return interaction(
            self.users[number % 2],
            self.endpoints[number % 3 % 2].value,
            method=("GET", "POST", "PUT")[number % 3],
            code=200 + number,
            status=1 + number % 2,
            type=f"type-{number % 4}",
            # Some at the very same time: the id decides between them.
            occurred_ms=self.now_ms - number // 2 * HOUR_MS,
        )

    async def keys(self, filter_: str, **fields: Any) -> set[str]:
        found = await rows(self.client, filter_, **fields)
        assert len({kept.id for kept in found}) == len(found)
        return {kept.usage_key for kept in found}


@pytest.fixture
async def kept(served: Served) -> AsyncIterator[Kept]:
    async with partner(served) as client:
        endpoints = [await new_endpoint(served), await new_endpoint(served)]
        made = Kept(client, endpoints, ManualClock().now_ms)
        assert all(result.feature_usage_log_id for result in await keep(client, *made.events))
        yield made


FILTERS: dict[str, Any] = {
    'user_id = "{kept.users[1]}"': lambda kept, e: e.user_id == kept.users[1],
    'feature_endpoint_id = "{kept.endpoints[0].id}"': lambda kept, e: (
        e.feature_endpoint == kept.endpoints[0].value
    ),
    'feature_endpoint = "{kept.endpoints[1].value}"': lambda kept, e: (
        e.feature_endpoint == kept.endpoints[1].value
    ),
    'usage_key = "{kept.events[3].usage_key}"': lambda kept, e: e is kept.events[3],
    "status = FAILED": lambda _, e: e.status == pb.FEATURE_USAGE_STATUS_FAILED,
    "status = feature_usage_status_success": lambda _, e: e.status == 1,
    "code >= 204 AND code < 207": lambda _, e: 204 <= e.code < 207,
    'method = "PUT" OR method = GET': lambda _, e: e.method != "POST",
    'type = "type-2"': lambda _, e: e.type == "type-2",
    'NOT type = "type-2"': lambda _, e: e.type != "type-2",
    "created_time >= 2020-01-01T00:00:00Z": lambda *_: True,
    "client_id = no-such-client": lambda *_: False,
    "": lambda *_: True,
}


class TestFilters:
    @pytest.mark.parametrize("text", FILTERS)
    async def test_find_what_they_say(self, kept: Kept, text: str) -> None:
        expected = {e.usage_key for e in kept.events if FILTERS[text](kept, e)}
        assert await kept.keys(text.format(kept=kept)) == expected

    async def test_by_time(self, kept: Kept) -> None:
        third = kept.events[4].occurred_time
        text = f'occurred_time > "{third.ToJsonString()}" AND user_id = "{kept.users[0]}"'
        assert await kept.keys(text) == {kept.events[0].usage_key, kept.events[2].usage_key}

    async def test_do_not_look_into_parts(self, kept: Kept) -> None:
        for field in ("payload", "params", "email", "truncated_parts"):
            with refused("FILTER_INVALID"):
                await kept.keys(f'{field} = "x"')


class TestPages:
    @pytest.mark.parametrize("size", [1, 3, 12, 1_000])
    async def test_newest_first_each_row_once(self, kept: Kept, size: int) -> None:
        found = await rows(kept.client, "", page_size=size)
        order = [(row.occurred_time.ToMilliseconds(), row.id) for row in found]
        assert order == sorted(order, reverse=True)
        assert {row.usage_key for row in found} == {e.usage_key for e in kept.events}

    async def test_oldest_first_if_asked(self, kept: Kept) -> None:
        found = await rows(kept.client, "status = SUCCESS", page_size=2, order_by="occurred_time")
        order = [(row.occurred_time.ToMilliseconds(), row.id) for row in found]
        assert order == sorted(order)
        assert len(order) == 6

    async def test_that_came_meanwhile_shift_nothing(self, kept: Kept) -> None:
        request = pb.ListFeatureUsageLogsRequest(page_size=5)
        first = await kept.client.usage.ListFeatureUsageLogs(request)
        newer = interaction(new_user(), kept.endpoints[0].value)
        await keep(kept.client, newer)
        request.page_token = first.next_page_token
        request.page_size = 1_000
        rest = await kept.client.usage.ListFeatureUsageLogs(request)
        found = [*first.feature_usage_logs, *rest.feature_usage_logs]
        assert len(found) == len({row.id for row in found}) == 12

    async def test_count_all_that_match_if_asked(self, kept: Kept) -> None:
        request = pb.ListFeatureUsageLogsRequest(page_size=2, filter="code < 205")
        assert (await kept.client.usage.ListFeatureUsageLogs(request)).total_size == 0
        request.with_total_size = True
        assert (await kept.client.usage.ListFeatureUsageLogs(request)).total_size == 5

    async def test_of_large_rows_have_fewer(self, served: Served) -> None:
        endpoint = await new_endpoint(served, captured_parts=ALL_PARTS)
        user_id, part = new_user(), json_value("x" * 20_000)
        events = [
            interaction(user_id, endpoint.value, params=part, query=part, payload=part)
            for _ in range(120)
        ]
        for start in range(0, 120, 30):
            await keep(served, *events[start : start + 30])
        found = await rows(served, f'user_id = "{user_id}"', page_size=1_000)
        assert {row.usage_key for row in found} == {event.usage_key for event in events}

    async def test_of_another_query_are_refused(self, kept: Kept, served: Served) -> None:
        request = pb.ListFeatureUsageLogsRequest(page_size=2)
        token = (await kept.client.usage.ListFeatureUsageLogs(request)).next_page_token
        others: list[tuple[Served, dict[str, Any]]] = [
            (kept.client, {"filter": "code = 200"}),
            (kept.client, {"order_by": "created_time"}),
            # Another's list, though the request is the same.
            (served, {}),
        ]
        for client, fields in others:
            with refused("PAGE_TOKEN_INVALID"):
                await client.usage.ListFeatureUsageLogs(
                    pb.ListFeatureUsageLogsRequest(page_token=token, **fields)
                )

    async def test_only_by_what_they_can_be_sorted_by(self, kept: Kept) -> None:
        with refused("ORDER_BY_INVALID"):
            await rows(kept.client, "", order_by="email")


class TestWhoSeesThem:
    async def test_a_client_its_own_and_an_admin_all(self, kept: Kept, served: Served) -> None:
        user_id = kept.users[0]
        (theirs,) = await keep(served, interaction(user_id, kept.endpoints[0].value))
        assert len(await rows_of(kept.client, user_id)) == 6
        assert len(await rows_of(served, user_id)) == 7
        assert await kept.keys("client_id = tests") == set()
        # A filter cannot reach past it.
        assert len(await kept.keys("code > 0 OR client_id = tests")) == 12
        with refused("FILTER_INVALID"):
            await kept.keys("code > 0) OR (client_id = tests")
        with refused("RESOURCE_NOT_FOUND"):
            await row(kept.client, theirs.feature_usage_log_id)
        assert (await row(served, theirs.feature_usage_log_id)).user_id == user_id

    async def test_only_with_the_scope(self, kept: Kept, served: Served) -> None:
        async with partner(served, scopes=["usage.write"]) as writing:
            with refused("SCOPE_MISSING"):
                await rows(writing, "")
            with refused("SCOPE_MISSING"):
                await row(writing, str(ObjectId()))


class TestGet:
    async def test_gives_what_the_list_has(self, kept: Kept) -> None:
        for listed in await rows(kept.client, ""):
            assert await row(kept.client, listed.id) == listed

    async def test_of_none(self, served: Served) -> None:
        with refused("RESOURCE_NOT_FOUND"):
            await row(served, str(ObjectId()))
        with refused("MALFORMED_ID"):
            await row(served, new_key())
