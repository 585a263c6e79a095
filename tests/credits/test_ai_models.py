"""Models and their prices through the contract: kept, versioned, in force at their times."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from zaaz.credits.v1 import ai_model_pb2, credits_service_pb2
from zaaz.credits.v1 import usage_service_pb2 as usage_pb

from server.mongo.database import Database
from tests.conftest import MongoClient
from tests.credits.priced import (
    CREDIT,
    billed,
    change_model,
    delete_model,
    dollars,
    get_model,
    model_histories,
    new_model,
    new_profit,
    outcome,
    restore_model,
    until_billed,
)
from tests.ledger.calls import refused
from tests.serving import ManualClock, Served, new_key, serving, usage_event

HOUR_MS = 3_600_000
ONE = 12 * CREDIT // 10
"""What `billed` comes to at a dollar per million tokens."""

FULL: dict[str, Any] = {
    "name": "Full",
    "provider": "somebody",
    "kind": ai_model_pb2.AI_MODEL_KIND_LLM,
    "prices": ai_model_pb2.TokenPrices(
        input_token_price_micros=1,
        output_token_price_micros=2,
        cache_read_token_price_micros=0,
        cache_write_token_price_micros=4,
        tiers=[
            ai_model_pb2.TokenPriceTier(
                above_input_tokens=100,
                input_token_price_micros=5,
                output_token_price_micros=6,
                cache_read_token_price_micros=7,
                cache_write_token_price_micros=0,
            ),
            ai_model_pb2.TokenPriceTier(above_input_tokens=200, input_token_price_micros=9),
        ],
    ),
    "metadata": {"context": "128000", "modalities/in": "text"},
    "description": "All fields.",
    "is_active": True,
}


@pytest.fixture(scope="module")
def manual_clock() -> ManualClock:
    """One for all tests here; it only goes on."""
    return ManualClock()


@pytest.fixture(scope="module")
async def clocked(
    mongo_url: str, mongo_client: MongoClient, manual_clock: ManualClock
) -> AsyncIterator[Served]:
    """One server for all tests here: each has models of its own."""
    name = f"test_{new_key()[:16]}"
    async with serving(mongo_url, name, manual_clock) as server:
        yield server
    await mongo_client.drop_database(name)


class TestRows:
    async def test_every_field_comes_back(self, served: Served) -> None:
        value = f"p/{new_key()}"
        made = await new_model(served, value=value, **FULL)
        wanted = ai_model_pb2.AiModel(value=value, currency="USD", **FULL)
        assert made.id
        assert made.etag
        assert made.created_time == made.updated_time
        assert made.created_time.seconds
        assert without_output(made) == wanted
        assert await get_model(served, made.id) == made
        (history,) = await model_histories(served, made.id)
        for field in ("name", "value", "provider", "kind", "prices", "currency", "metadata"):
            assert getattr(history, field) == getattr(made, field), field
        assert (history.description, history.is_active) == (made.description, True)
        assert history.client_id == "tests"

    async def test_every_field_can_be_changed_but_the_value(self, served: Served) -> None:
        made = await new_model(served)
        changed = await change_model(served, made.id, **FULL)
        assert without_output(changed) == ai_model_pb2.AiModel(
            value=made.value, currency="USD", **FULL
        )
        with refused("FIELD_IMMUTABLE"):
            await change_model(served, made.id, value="p/other")
        with refused("UPDATE_MASK_INVALID"):
            await change_model(served, made.id, currency="EUR")

    async def test_one_price_can_be_changed(self, served: Served) -> None:
        made = await new_model(served, **FULL)
        request = ai_model_pb2.UpdateAiModelRequest(
            ai_model=ai_model_pb2.AiModel(
                id=made.id, prices=ai_model_pb2.TokenPrices(output_token_price_micros=77)
            ),
            update_mask=FieldMask(paths=["prices.output_token_price_micros"]),
        )
        changed = (await served.credits.UpdateAiModel(request)).ai_model
        wanted = ai_model_pb2.TokenPrices()
        wanted.CopyFrom(made.prices)
        wanted.output_token_price_micros = 77
        assert changed.prices == wanted

    async def test_a_value_is_unique_among_live_rows(self, served: Served) -> None:
        made = await new_model(served)
        with refused("ALREADY_EXISTS") as refusal:
            await new_model(served, value=made.value)
        assert refusal.metadata["field"] == "value"
        await delete_model(served, made.id)
        second = await new_model(served, value=made.value)
        with refused("ALREADY_EXISTS"):
            await restore_model(served, made.id)
        await delete_model(served, second.id)

    async def test_one_model_is_the_initial_one(self, served: Served) -> None:
        first = await new_model(served, is_initial=True)
        with refused("ALREADY_EXISTS") as refusal:
            await new_model(served, is_initial=True)
        assert refusal.metadata["field"] == "is_initial"
        second = await new_model(served)
        with refused("ALREADY_EXISTS"):
            await change_model(served, second.id, is_initial=True)
        await change_model(served, first.id, is_initial=False)
        assert (await change_model(served, second.id, is_initial=True)).is_initial
        await delete_model(served, second.id)

    async def test_tiers_are_in_the_order_of_their_bounds(self, served: Served) -> None:
        tier = ai_model_pb2.TokenPriceTier(above_input_tokens=5)
        with refused("FIELD_INVALID") as refusal:
            await new_model(served, prices=dollars(1, tiers=[tier, tier]))
        assert refusal.metadata["field"] == "ai_model.prices.tiers"

    async def test_a_model_with_a_live_margin_stays(self, served: Served) -> None:
        model = await new_model(served)
        await new_profit(served, 5, model.id)
        with refused("STILL_REFERENCED"):
            await delete_model(served, model.id)

    async def test_histories_can_only_be_read(self) -> None:
        service = credits_service_pb2.DESCRIPTOR.services_by_name["CreditsService"]
        named = [method.name for method in service.methods if "Histor" in method.name]
        assert len(named) == 6
        assert all(name.startswith(("List", "Get")) for name in named)


class TestHistory:
    async def test_every_change_is_a_row_of_it(self, served: Served) -> None:
        made = await new_model(served)
        await change_model(served, made.id, description="changed")
        await change_model(served, made.id, description="changed")
        await delete_model(served, made.id)
        await restore_model(served, made.id)
        rows = await model_histories(served, made.id)
        assert [(row.description, row.is_deleted, row.HasField("prices")) for row in rows] == [
            ("", False, True),
            ("changed", False, True),
            ("changed", True, False),
            ("changed", False, True),
        ]
        assert [row.reason for row in rows] == ["", "a test", "", ""]
        assert {row.ai_model_id for row in rows} == {made.id}
        answer = await served.credits.GetAiModelHistory(
            ai_model_pb2.GetAiModelHistoryRequest(id=rows[1].id)
        )
        assert answer.ai_model_history == rows[1]


class TestInForce:
    async def test_usage_has_the_price_of_its_time(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        began = manual_clock.now_ms
        model = await new_model(clocked, 1)
        manual_clock.advance(HOUR_MS)
        await change_model(clocked, model.id, prices=dollars(3))
        # Also at the very moment of the change, and late usage by the old one.
        assert await billed(clocked, model.value, manual_clock.now_ms) == 3 * ONE
        assert await billed(clocked, model.value, manual_clock.now_ms - 1) == ONE
        assert await billed(clocked, model.value, began) == ONE
        assert await billed(clocked, model.value, began - 1) == "PRICE_NOT_FOUND"

    async def test_a_price_set_ahead_begins_at_its_moment(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        model = await new_model(clocked, 1)
        begins = manual_clock.now_ms + HOUR_MS
        ahead = await change_model(clocked, model.id, begins, prices=dollars(5))
        assert ahead.prices == dollars(1)
        # What is set now stays until then, and does not end it.
        await change_model(clocked, model.id, prices=dollars(2))
        manual_clock.advance(HOUR_MS - 1)
        assert await billed(clocked, model.value, manual_clock.now_ms) == 2 * ONE
        assert (await get_model(clocked, model.id)).prices == dollars(2)
        manual_clock.advance(1)
        assert await billed(clocked, model.value, manual_clock.now_ms) == 5 * ONE
        assert (await get_model(clocked, model.id)).prices == dollars(5)
        assert await billed(clocked, model.value, begins - 1) == 2 * ONE

    async def test_a_deletion_ends_what_was_to_begin(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        model = await new_model(clocked, 1)
        begins = manual_clock.now_ms + HOUR_MS
        await change_model(clocked, model.id, begins, prices=dollars(5))
        manual_clock.advance(1_000)
        await delete_model(clocked, model.id)
        assert await billed(clocked, model.value, manual_clock.now_ms) == "PRICE_NOT_FOUND"
        assert await billed(clocked, model.value, manual_clock.now_ms - 1) == ONE
        manual_clock.advance(1_000)
        await restore_model(clocked, model.id)
        assert await billed(clocked, model.value, manual_clock.now_ms - 1) == "PRICE_NOT_FOUND"
        assert await billed(clocked, model.value, manual_clock.now_ms) == ONE
        manual_clock.advance(HOUR_MS)
        assert await billed(clocked, model.value, manual_clock.now_ms) == ONE
        assert (await get_model(clocked, model.id)).prices == dollars(1)

    async def test_changes_of_one_moment_count_in_their_order(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        # By a clock that stands still: the last of them is the price.
        model = await new_model(clocked, 9)
        for amount in (8, 7, 6, 5, 4, 3, 2, 1):
            await change_model(clocked, model.id, prices=dollars(amount))
        assert await billed(clocked, model.value, manual_clock.now_ms) == ONE

    async def test_only_prices_are_set_ahead_and_nothing_behind(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        model = await new_model(clocked)
        later, earlier = manual_clock.now_ms + 1, manual_clock.now_ms - 1
        with refused("FIELD_INVALID") as refusal:
            await change_model(clocked, model.id, later, name="Two", prices=dollars(2))
        assert refusal.metadata["field"] == "effective_time"
        with refused("FIELD_INVALID") as refusal:
            await change_model(clocked, model.id, earlier, prices=dollars(2))
        assert refusal.metadata["field"] == "effective_time"

    async def test_an_inactive_model_is_billed_all_the_same(self, served: Served) -> None:
        model = await new_model(served, 2, is_active=False)
        assert await billed(served, model.value, model.created_time.ToMilliseconds()) == 2 * ONE

    async def test_a_model_without_prices_has_none(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        model = await new_model(clocked, 1)
        manual_clock.advance(1)
        request = ai_model_pb2.UpdateAiModelRequest(
            ai_model=ai_model_pb2.AiModel(id=model.id), update_mask=FieldMask(paths=["prices"])
        )
        await clocked.credits.UpdateAiModel(request)
        assert await billed(clocked, model.value, manual_clock.now_ms) == "PRICE_NOT_FOUND"
        assert await billed(clocked, model.value, manual_clock.now_ms - 1) == ONE


class TestBackdated:
    async def test_usage_that_waited_for_a_price_is_billed(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id, value = await clocked.new_wallet(1_000 * CREDIT), f"p/{new_key()}"
        occurred = manual_clock.now_ms - HOUR_MS
        event = usage_event(
            user_id, ai_model=value, input_tokens=1_000, output_tokens=0, occurred_ms=occurred
        )
        (result,) = await clocked.record(event)
        assert outcome(result) == "PRICE_NOT_FOUND"
        rejected = await clocked.usage.ListRejectedUsage(usage_pb.ListRejectedUsageRequest())
        ids = [row.id for row in rejected.rejected_usages if row.event == event]
        await new_model(clocked, 1, occurred, value=value)
        replayed = await clocked.usage.ReplayRejectedUsage(
            usage_pb.ReplayRejectedUsageRequest(ids=ids)
        )
        assert [outcome(result) for result in replayed.results] == [ONE]

    async def test_a_namesake_begins_when_the_other_has_ended(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        first = await new_model(clocked, 1)
        await change_model(clocked, first.id, manual_clock.now_ms + HOUR_MS, prices=dollars(9))
        manual_clock.advance(1_000)
        ended = manual_clock.now_ms
        await delete_model(clocked, first.id)
        # Past the time of what was to come and never did.
        manual_clock.advance(2 * HOUR_MS)
        with refused("FIELD_INVALID") as refusal:
            await new_model(clocked, 2, ended - 1, value=first.value)
        assert refusal.metadata["field"] == "effective_time"
        await new_model(clocked, 2, ended, value=first.value)
        assert await billed(clocked, first.value, ended - 1) == ONE
        assert await billed(clocked, first.value, ended) == 2 * ONE
        assert await billed(clocked, first.value, manual_clock.now_ms) == 2 * ONE


class TestProcesses:
    async def test_another_process_notices(
        self, mongo_url: str, mongo_client: MongoClient, database: Database
    ) -> None:
        async with (
            serving(mongo_url, database.name) as one,
            serving(mongo_url, database.name) as other,
        ):
            model = await new_model(one, 1)
            occurred = model.created_time.ToMilliseconds()
            assert await billed(one, model.value, occurred) == ONE
            await until_billed(other, model.value, occurred, ONE)


def without_output(model: ai_model_pb2.AiModel) -> ai_model_pb2.AiModel:
    """The model with nothing but what a caller says, and the currency."""
    bare = ai_model_pb2.AiModel()
    bare.CopyFrom(model)
    for field in ("id", "etag", "created_time", "updated_time", "deleted_time"):
        bare.ClearField(field)
    return bare


@pytest.mark.parametrize("verb", ["Create", "Update", "Delete", "Restore"])
async def test_a_request_id_is_answered_once(served: Served, verb: str) -> None:
    model = await new_model(served)
    if verb == "Restore":
        await delete_model(served, model.id)
    request = getattr(ai_model_pb2, f"{verb}AiModelRequest")(request_id=new_key())
    if verb == "Create":
        request.ai_model.CopyFrom(ai_model_pb2.AiModel(name="One", value=f"p/{new_key()}"))
    elif verb == "Update":
        request.ai_model.CopyFrom(ai_model_pb2.AiModel(id=model.id, name="Two"))
    else:
        request.id = model.id
    call = getattr(served.credits, f"{verb}AiModel")
    assert await call(request) == await call(request)
    request.reason = "other"
    with refused("REQUEST_ID_REUSED"):
        await call(request)
