"""What endpoints cost: usage by the version at its time, and consumptions."""

from typing import Any

import grpc
import pytest
from zaaz.catalog.v1 import feature_endpoint_pb2
from zaaz.credits.v1 import credits_service_pb2, usage_service_pb2

from server.kernel.clock import DAY_MS
from tests.catalog.calls import (
    change_endpoint,
    change_feature,
    delete_endpoint,
    new_endpoint,
    new_feature,
    restore_endpoint,
)
from tests.serving import ManualClock, Served, new_key, reason_of, usage_event

HOUR_MS = DAY_MS // 24
MODEL_MICROS = 540_000
"""What `usage_event` costs by its model."""


async def billed(served: Served, user_id: str, value: str, time_ms: int, **fields: Any) -> int:
    """What an event of that endpoint alone cost; -1 where it is not found."""
    event = usage_event(user_id, feature_endpoint=value, ai_model="", occurred_ms=time_ms, **fields)
    (result,) = await served.record(event)
    if result.HasField("error"):
        assert "FEATURE_ENDPOINT_NOT_FOUND" in str(result.error)
        return -1
    return int(result.receipt.credits_micros)


class TestUsage:
    async def test_an_endpoint_s_credits_are_added_to_its_model_s(self, served: Served) -> None:
        user_id = await served.new_wallet(10_000_000)
        endpoint = await new_endpoint(served, 70)
        event = usage_event(user_id, feature_endpoint=endpoint.value)
        (result,) = await served.record(event)
        assert result.receipt.credits_micros == MODEL_MICROS + 70
        row = (await served.transactions(user_id))[-1]
        assert row.credits_micros == MODEL_MICROS + 70
        assert row.decrease_source == endpoint.id
        usage = (
            await served.credits.GetCreditsUsage(
                credits_service_pb2.GetCreditsUsageRequest(id=row.id)
            )
        ).credits_usage
        assert usage.feature_endpoint == endpoint.value
        assert usage.endpoint_credits_micros == 70
        assert usage.credits_micros == (
            usage.input_credits_micros + usage.output_credits_micros + 70
        )
        assert usage.credits_micros == usage.cost_credits_micros + usage.profit_credits_micros
        assert (usage.profit_ppm, usage.credit_price_micros) == (200_000, 1_000_000)
        await served.assert_sound(user_id)

    async def test_an_endpoint_alone_costs_its_credits(self, served: Served) -> None:
        user_id = await served.new_wallet(1_000)
        endpoint = await new_endpoint(served, 70)
        event = usage_event(user_id, feature_endpoint=endpoint.value, ai_model="")
        first, again = [(await served.record(event))[0].receipt for _ in range(2)]
        assert (first.credits_micros, again.credits_micros) == (70, 70)
        assert again.duplicate
        assert (await served.wallet(user_id)).credits_micros == 930

    async def test_a_free_endpoint(self, served: Served) -> None:
        user_id = await served.new_wallet(1_000)
        endpoint = await new_endpoint(served)
        (result,) = await served.record(
            usage_event(user_id, feature_endpoint=endpoint.value, ai_model="")
        )
        assert result.receipt.credits_micros == 0
        assert (await served.wallet(user_id)).credits_micros == 1_000

    async def test_what_is_switched_off_was_used_all_the_same(self, served: Served) -> None:
        user_id = await served.new_wallet(1_000)
        feature = await new_feature(served, is_active=False)
        endpoint = await new_endpoint(served, 7, feature_id=feature.id, is_active=False)
        event = usage_event(user_id, feature_endpoint=endpoint.value, ai_model="")
        (result,) = await served.record(event)
        assert result.receipt.credits_micros == 7

    async def test_through_a_stream(self, served: Served) -> None:
        user_id = await served.new_wallet(1_000)
        endpoint = await new_endpoint(served, 7)
        requests = [
            usage_service_pb2.IngestUsageRequest(
                open=usage_service_pb2.OpenUsageStream(writer_id=new_key())
            ),
            usage_service_pb2.IngestUsageRequest(
                frame=usage_service_pb2.UsageFrame(
                    events=[
                        usage_event(user_id, feature_endpoint=value, ai_model="")
                        for value in (endpoint.value, "unknown", endpoint.value)
                    ]
                )
            ),
        ]
        answers = [answer async for answer in served.usage.IngestUsage(iter(requests))]
        ack = answers[-1].ack
        assert ack.billed_events == 2
        assert [error.index for error in ack.errors] == [1]
        assert (await served.wallet(user_id)).credits_micros == 986


class TestTime:
    async def test_late_usage_pays_the_old_price_and_a_set_one_waits(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet(1_000)
        begin_ms = manual_clock.now_ms
        endpoint = await new_endpoint(clocked, 5)
        manual_clock.advance(HOUR_MS)
        await change_endpoint(
            clocked, endpoint.id, credits_micros=9, effective_ms=begin_ms + 3 * HOUR_MS
        )
        manual_clock.advance(HOUR_MS)
        await change_endpoint(clocked, endpoint.id, credits_micros=7)
        manual_clock.advance(4 * HOUR_MS)
        times = [begin_ms + hours * HOUR_MS + shift for hours in (0, 2, 3) for shift in (-1, 0)]
        prices = [await billed(clocked, user_id, endpoint.value, time) for time in times]
        assert prices == [-1, 5, 5, 7, 7, 9]
        rows = await clocked.transactions(user_id)
        assert {row.decrease_source for row in rows[1:]} == {endpoint.id}

    async def test_a_created_one_may_begin_before_or_later(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id, now_ms = await clocked.new_wallet(1_000), manual_clock.now_ms
        past = await new_endpoint(clocked, 5, effective_ms=now_ms - DAY_MS)
        assert await billed(clocked, user_id, past.value, now_ms - HOUR_MS) == 5
        later = await new_endpoint(clocked, 6, effective_ms=now_ms + HOUR_MS)
        assert later.credits_micros == 0
        assert await billed(clocked, user_id, later.value, now_ms) == -1
        manual_clock.advance(HOUR_MS)
        assert await billed(clocked, user_id, later.value, now_ms + HOUR_MS) == 6
        assert await billed(clocked, user_id, later.value, now_ms + HOUR_MS - 1) == -1

    async def test_a_deletion_ends_it_and_what_was_set_ahead_until_it_is_restored(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id, begin_ms = await clocked.new_wallet(1_000), manual_clock.now_ms
        endpoint = await new_endpoint(clocked, 5)
        await change_endpoint(
            clocked, endpoint.id, credits_micros=9, effective_ms=begin_ms + 4 * HOUR_MS
        )
        manual_clock.advance(HOUR_MS)
        await delete_endpoint(clocked, endpoint.id)
        manual_clock.advance(HOUR_MS)
        assert await billed(clocked, user_id, endpoint.value, begin_ms) == 5
        assert await billed(clocked, user_id, endpoint.value, begin_ms + HOUR_MS) == -1
        await restore_endpoint(clocked, endpoint.id)
        manual_clock.advance(8 * HOUR_MS)
        times = [begin_ms + hours * HOUR_MS for hours in (1, 2, 4, 9)]
        prices = [await billed(clocked, user_id, endpoint.value, time) for time in times]
        assert prices == [-1, 5, 5, 5]

    async def test_a_value_that_is_used_again(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id, begin_ms = await clocked.new_wallet(1_000), manual_clock.now_ms
        old = await new_endpoint(clocked, 5)
        manual_clock.advance(HOUR_MS)
        await delete_endpoint(clocked, old.id)
        manual_clock.advance(HOUR_MS)
        new = await new_endpoint(clocked, 8, value=old.value)
        times = [begin_ms, begin_ms + HOUR_MS, begin_ms + 2 * HOUR_MS]
        prices = [await billed(clocked, user_id, old.value, time) for time in times]
        assert prices == [5, -1, 8]
        rows = await clocked.transactions(user_id)
        assert [row.decrease_source for row in rows[1:]] == [old.id, new.id]

    async def test_a_new_one_does_not_begin_in_the_time_of_an_old_one(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        old = await new_endpoint(clocked, 5)
        manual_clock.advance(HOUR_MS)
        end_ms = manual_clock.now_ms
        await delete_endpoint(clocked, old.id)
        manual_clock.advance(HOUR_MS)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await new_endpoint(clocked, 8, value=old.value, effective_ms=end_ms - 1)
        assert reason_of(refusal.value) == "FIELD_INVALID"
        user_id = await clocked.new_wallet(1_000)
        await new_endpoint(clocked, 8, value=old.value, effective_ms=end_ms)
        assert await billed(clocked, user_id, old.value, end_ms - 1) == 5
        assert await billed(clocked, user_id, old.value, end_ms) == 8

    async def test_usage_of_one_that_was_purged_since(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id, begin_ms = await clocked.new_wallet(1_000), manual_clock.now_ms
        endpoint = await new_endpoint(clocked, 5)
        manual_clock.advance(HOUR_MS)
        await clocked.catalog.PurgeFeatureEndpoint(
            feature_endpoint_pb2.PurgeFeatureEndpointRequest(id=endpoint.id)
        )
        assert await billed(clocked, user_id, endpoint.value, begin_ms) == 5
        assert await billed(clocked, user_id, endpoint.value, manual_clock.now_ms) == -1


async def consume(served: Served, user_id: str, value: str, request_id: str = "") -> Any:
    request = credits_service_pb2.ConsumeCreditsRequest(
        request_id=request_id or new_key(),
        user_id=user_id,
        credits_micros=10,
        feature_endpoint=value,
    )
    return await served.credits.ConsumeCredits(request)


class TestConsume:
    async def test_the_entry_names_the_endpoint(self, served: Served) -> None:
        user_id = await served.new_wallet(100)
        endpoint = await new_endpoint(served, 70)
        key = new_key()
        answer = await consume(served, user_id, endpoint.value, key)
        # The caller says how many: an endpoint's own credits are for usage.
        assert answer.wallet.credits_micros == 90
        assert answer.transaction.decrease_source == endpoint.id
        assert (await served.transactions(user_id))[-1].decrease_source == endpoint.id
        assert await consume(served, user_id, endpoint.value, key) == answer
        await served.assert_sound(user_id)

    async def test_a_replay_with_another_endpoint(self, served: Served) -> None:
        user_id, key = await served.new_wallet(100), new_key()
        one, other = await new_endpoint(served), await new_endpoint(served)
        await consume(served, user_id, one.value, key)
        for value in (other.value, ""):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await consume(served, user_id, value, key)
            assert reason_of(refusal.value) == "REQUEST_ID_REUSED"

    async def test_a_replay_after_the_endpoint_s_end(self, served: Served) -> None:
        user_id, key = await served.new_wallet(100), new_key()
        endpoint = await new_endpoint(served)
        first = await consume(served, user_id, endpoint.value, key)
        await delete_endpoint(served, endpoint.id)
        assert await consume(served, user_id, endpoint.value, key) == first
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await consume(served, user_id, endpoint.value)
        assert reason_of(refusal.value) == "FEATURE_ENDPOINT_NOT_FOUND"
        assert (await served.wallet(user_id)).credits_micros == 90

    async def test_one_that_is_switched_off_can_be_paid_for(self, served: Served) -> None:
        user_id = await served.new_wallet(100)
        endpoint = await new_endpoint(served)
        await change_endpoint(served, endpoint.id, "is_active")
        await change_feature(served, endpoint.feature_id, "is_active")
        answer = await consume(served, user_id, endpoint.value)
        assert answer.transaction.decrease_source == endpoint.id
