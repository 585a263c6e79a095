"""Feature endpoints through the contract: fields, versions, and who is told of a change."""

from typing import Any

import grpc
import pytest
from zaaz.catalog.v1 import feature_endpoint_pb2, feature_pb2

from server.kernel.clock import DAY_MS
from tests.catalog.calls import (
    change_endpoint,
    change_feature,
    delete_endpoint,
    new_endpoint,
    new_feature,
    restore_endpoint,
)
from tests.conftest import MongoClient
from tests.serving import ManualClock, Served, new_key, reason_of, serving, usage_event

HOUR_MS = DAY_MS // 24


async def histories(served: Served, endpoint_id: str) -> list[Any]:
    """The endpoint's history, oldest first."""
    request = feature_endpoint_pb2.ListFeatureEndpointHistoriesRequest(
        filter=f"feature_endpoint_id = {endpoint_id}", order_by="created_time"
    )
    answer = await served.catalog.ListFeatureEndpointHistories(request)
    return list(answer.feature_endpoint_histories)


async def get(served: Served, endpoint_id: str, *expand: str) -> Any:
    request = feature_endpoint_pb2.GetFeatureEndpointRequest(id=endpoint_id, expand=expand)
    return (await served.catalog.GetFeatureEndpoint(request)).feature_endpoint


class TestFields:
    async def test_every_field_comes_back_and_is_kept(self, served: Served) -> None:
        feature = await new_feature(served)
        given = feature_endpoint_pb2.FeatureEndpoint(
            feature_id=feature.id,
            name="Send",
            value=f"chat.send:{new_key()}",
            description="A message",
            endpoint="/v1/chat",
            method=feature_endpoint_pb2.HTTP_METHOD_POST,
            credits_micros=1_500_000,
            max_word=feature_pb2.WordLimit(free=100, paid=1_000),
            captured_parts=[
                feature_endpoint_pb2.CAPTURED_PART_PARAMS,
                feature_endpoint_pb2.CAPTURED_PART_RESPONSE,
            ],
            is_active=True,
        )
        request = feature_endpoint_pb2.CreateFeatureEndpointRequest(
            feature_endpoint=given, reason="the first one"
        )
        made = (await served.catalog.CreateFeatureEndpoint(request)).feature_endpoint
        assert await get(served, made.id) == made
        (version,) = await histories(served, made.id)
        found = await served.catalog.GetFeatureEndpointHistory(
            feature_endpoint_pb2.GetFeatureEndpointHistoryRequest(id=version.id)
        )
        assert found.feature_endpoint_history == version
        for field, value in given.ListFields():
            assert getattr(made, field.name) == value
            assert getattr(version, field.name) == value
        assert (version.feature_endpoint_id, version.client_id) == (made.id, "tests")
        assert (version.reason, version.is_deleted) == ("the first one", False)
        assert version.effective_time == version.created_time == made.created_time
        own = {"id", "feature", "is_deleted", "etag", "created_time", "updated_time"}
        assert {field.name for field, _ in given.ListFields()} | own | {"deleted_time"} == set(
            feature_endpoint_pb2.FeatureEndpoint.DESCRIPTOR.fields_by_name
        )

    async def test_its_feature_is_filled_in(self, served: Served) -> None:
        feature = await new_feature(served)
        endpoint = await new_endpoint(served, feature_id=feature.id)
        assert (await get(served, endpoint.id, "feature")).feature == feature
        request = feature_endpoint_pb2.ListFeatureEndpointsRequest(
            filter=f'feature_id = {feature.id} AND value = "{endpoint.value}"', expand=["feature"]
        )
        (row,) = (await served.catalog.ListFeatureEndpoints(request)).feature_endpoints
        assert (row.id, row.feature) == (endpoint.id, feature)

    async def test_filters(self, served: Served) -> None:
        feature = await new_feature(served)
        ids = [
            (await new_endpoint(served, feature_id=feature.id, method=method, is_active=active)).id
            for method, active in ((1, True), (2, True), (2, False))
        ]
        for condition, places in {
            "method = POST": [1, 2],
            "method = HTTP_METHOD_GET": [0],
            "is_active = false": [2],
            "method = POST AND is_active = true": [1],
        }.items():
            request = feature_endpoint_pb2.ListFeatureEndpointsRequest(
                filter=f"feature_id = {feature.id} AND {condition}", order_by="created_time"
            )
            rows = (await served.catalog.ListFeatureEndpoints(request)).feature_endpoints
            assert {row.id for row in rows} == {ids[place] for place in places}, condition

    async def test_the_value_stays(self, served: Served) -> None:
        endpoint = await new_endpoint(served)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await change_endpoint(served, endpoint.id, value=f"{endpoint.value}2")
        assert reason_of(refusal.value) == "FIELD_IMMUTABLE"
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await new_endpoint(served, value=endpoint.value)
        assert reason_of(refusal.value) == "ALREADY_EXISTS"


class TestVersions:
    async def test_credits_set_ahead_come_into_force_by_themselves(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        begin_ms = manual_clock.now_ms
        endpoint = await new_endpoint(clocked, 5)
        for hours, credits_micros in ((2, 9), (1, 7)):
            ahead = await change_endpoint(
                clocked,
                endpoint.id,
                credits_micros=credits_micros,
                effective_ms=begin_ms + hours * HOUR_MS,
            )
            assert ahead.credits_micros == 5
        seen = []
        for _ in range(3):
            seen.append((await get(clocked, endpoint.id)).credits_micros)
            manual_clock.advance(HOUR_MS)
        assert seen == [5, 7, 9]
        rows = await histories(clocked, endpoint.id)
        times = [row.effective_time.ToMilliseconds() - begin_ms for row in rows]
        assert sorted(zip(times, (row.credits_micros for row in rows), strict=True)) == [
            (0, 5),
            (HOUR_MS, 7),
            (2 * HOUR_MS, 9),
        ]

    async def test_only_credits_can_be_set_ahead_and_nothing_behind(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        endpoint = await new_endpoint(clocked, 5)
        for shift_ms, fields in (
            (HOUR_MS, {"name": "Other"}),
            (HOUR_MS, {"name": "Other", "credits_micros": 6}),
            (-1, {"credits_micros": 6}),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await change_endpoint(
                    clocked, endpoint.id, effective_ms=manual_clock.now_ms + shift_ms, **fields
                )
            assert reason_of(refusal.value) == "FIELD_INVALID"
        assert len(await histories(clocked, endpoint.id)) == 1

    async def test_a_deletion_and_its_end(self, clocked: Served, manual_clock: ManualClock) -> None:
        endpoint = await new_endpoint(clocked, 5)
        manual_clock.advance(HOUR_MS)
        await delete_endpoint(clocked, endpoint.id)
        manual_clock.advance(HOUR_MS)
        assert (await restore_endpoint(clocked, endpoint.id)).credits_micros == 5
        rows = await histories(clocked, endpoint.id)
        assert [row.is_deleted for row in rows] == [False, True, False]
        assert [row.HasField("credits_micros") for row in rows] == [True, False, True]


async def price(served: Served, user_id: str, value: str) -> int:
    (result,) = await served.record(usage_event(user_id, feature_endpoint=value, ai_model=""))
    return -1 if result.HasField("error") else int(result.receipt.credits_micros)


class TestOtherProcesses:
    async def test_they_notice(self, mongo_url: str, mongo_client: MongoClient) -> None:
        name = f"test_{new_key()[:16]}"
        async with serving(mongo_url, name) as one, serving(mongo_url, name) as other:
            user_id = await one.new_wallet(1_000_000)
            endpoint = await new_endpoint(one, 5)
            assert await price(one, user_id, endpoint.value) == 5
            await becomes(other, user_id, endpoint.value, 5)
            await change_endpoint(other, endpoint.id, credits_micros=8)
            assert await price(other, user_id, endpoint.value) == 8
            await becomes(one, user_id, endpoint.value, 8)
            await change_feature(other, endpoint.feature_id, name="What costs nothing")
        await mongo_client.drop_database(name)


async def becomes(served: Served, user_id: str, value: str, expected: int) -> None:
    """The price of a use, asked until it is as expected; the test's own limit ends it."""
    tries = 0
    while await price(served, user_id, value) != expected:
        tries += 1
        assert tries < 10_000
