"""Margins through the contract: one for all, one a model, in force at their times."""

from typing import Any

from zaaz.credits.v1 import ai_model_pb2
from zaaz.credits.v1 import credits_profit_pb2 as pb

from tests.credits.priced import (
    CREDIT,
    billed,
    change_profit,
    delete_profit,
    new_model,
    new_profit,
)
from tests.ledger.calls import refused
from tests.serving import ManualClock, Served, new_key

HOUR_MS = 3_600_000
PERCENT = 10_000


async def profits(served: Served, filter_: str, **fields: Any) -> list[pb.CreditsProfit]:
    request = pb.ListCreditsProfitsRequest(filter=filter_, **fields)
    return list((await served.credits.ListCreditsProfits(request)).credits_profits)


async def the_global_one(served: Served) -> pb.CreditsProfit:
    (found,) = await profits(served, 'name = "Default"')
    return found


class TestRows:
    async def test_every_field_comes_back(self, served: Served) -> None:
        model, name = await new_model(served), new_key()
        made = await new_profit(served, 7, model.id, name=name, description="Why.")
        assert (made.name, made.profit_ppm, made.ai_model_id) == (name, 7, model.id)
        assert (made.is_active, made.description, made.is_deleted) == (True, "Why.", False)
        assert not made.HasField("ai_model")
        request = pb.GetCreditsProfitRequest(id=made.id, expand=["ai_model"])
        expanded = (await served.credits.GetCreditsProfit(request)).credits_profit
        assert expanded.ai_model == model
        expanded.ClearField("ai_model")
        assert expanded == made
        (listed,) = await profits(served, f'ai_model_id = "{model.id}"', expand=["ai_model"])
        assert listed.ai_model.value == model.value

    async def test_history(self, served: Served) -> None:
        model = await new_model(served)
        made = await new_profit(served, 7, model.id)
        await change_profit(served, made.id, profit_ppm=8)
        await delete_profit(served, made.id)
        request = pb.ListCreditsProfitHistoriesRequest(
            filter=f'credits_profit_id = "{made.id}"', order_by="created_time asc"
        )
        rows = (await served.credits.ListCreditsProfitHistories(request)).credits_profit_histories
        assert [(row.HasField("profit_ppm"), row.profit_ppm, row.is_deleted) for row in rows] == [
            (True, 7, False),
            (True, 8, False),
            (False, 0, True),
        ]
        assert {(row.name, row.ai_model_id, row.client_id) for row in rows} == {
            (made.name, model.id, "tests")
        }

    async def test_one_for_all_and_one_a_model(self, served: Served) -> None:
        model = await new_model(served)
        with refused("ALREADY_EXISTS") as refusal:
            await new_profit(served, 1)
        assert refusal.metadata["field"] == "ai_model_id"
        made = await new_profit(served, 1, model.id)
        with refused("ALREADY_EXISTS") as refusal:
            await new_profit(served, 2, model.id)
        assert refusal.metadata["field"] == "ai_model_id"
        with refused("ALREADY_EXISTS") as refusal:
            await new_profit(served, 2, (await new_model(served)).id, name=made.name)
        assert refusal.metadata["field"] == "name"

    async def test_of_a_live_model_that_stays(self, served: Served) -> None:
        with refused("REFERENCE_NOT_FOUND"):
            await new_profit(served, 1, "0" * 24)
        made = await new_profit(served, 1, (await new_model(served)).id)
        other = await new_model(served)
        with refused("FIELD_IMMUTABLE"):
            await change_profit(served, made.id, ai_model_id=other.id)

    async def test_from_nothing_to_all_of_the_cost(self, served: Served) -> None:
        with refused("FIELD_INVALID") as refusal:
            await new_profit(served, 100 * PERCENT + 1, (await new_model(served)).id)
        assert refusal.metadata["field"] == "credits_profit.profit_ppm"

    async def test_a_purged_model_takes_no_margin_along(self, served: Served) -> None:
        model = await new_model(served)
        made = await new_profit(served, 1, model.id)
        await delete_profit(served, made.id)
        calls = served.credits
        with refused("STILL_REFERENCED") as refusal:
            await calls.PurgeAiModel(ai_model_pb2.PurgeAiModelRequest(id=model.id))
        assert refusal.metadata["references"] == f"credits_profits/{made.id}"


class TestInForce:
    async def test_a_models_own_over_the_one_for_all(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        model = await new_model(clocked)
        assert await billed(clocked, model.value, manual_clock.now_ms) == 120 * CREDIT // 100
        manual_clock.advance(1_000)
        own = await new_profit(clocked, 50 * PERCENT, model.id)
        assert await billed(clocked, model.value, manual_clock.now_ms) == 150 * CREDIT // 100
        assert await billed(clocked, model.value, manual_clock.now_ms - 1) == 120 * CREDIT // 100
        manual_clock.advance(1_000)
        await change_profit(clocked, own.id, is_active=False)
        assert await billed(clocked, model.value, manual_clock.now_ms) == 120 * CREDIT // 100
        manual_clock.advance(1_000)
        await change_profit(clocked, own.id, is_active=True, profit_ppm=0)
        assert await billed(clocked, model.value, manual_clock.now_ms) == CREDIT
        manual_clock.advance(1_000)
        await delete_profit(clocked, own.id)
        assert await billed(clocked, model.value, manual_clock.now_ms) == 120 * CREDIT // 100
        assert await billed(clocked, model.value, manual_clock.now_ms - 1) == CREDIT

    async def test_set_ahead_it_begins_at_its_moment(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        model, all_ = await new_model(clocked), await the_global_one(clocked)
        begins = manual_clock.now_ms + HOUR_MS
        ahead = await change_profit(clocked, all_.id, begins, profit_ppm=30 * PERCENT)
        assert ahead.profit_ppm == 20 * PERCENT
        manual_clock.advance(HOUR_MS - 1)
        assert await billed(clocked, model.value, manual_clock.now_ms) == 120 * CREDIT // 100
        manual_clock.advance(1)
        assert await billed(clocked, model.value, manual_clock.now_ms) == 130 * CREDIT // 100
        assert (await the_global_one(clocked)).profit_ppm == 30 * PERCENT

    async def test_without_any_nothing_is_billed_at_cost(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        model, all_ = await new_model(clocked), await the_global_one(clocked)
        manual_clock.advance(1_000)
        await change_profit(clocked, all_.id, is_active=False)
        assert await billed(clocked, model.value, manual_clock.now_ms) == "PRICE_NOT_FOUND"
        manual_clock.advance(1_000)
        await delete_profit(clocked, all_.id)
        # The next is for the time since, so that what waits can be billed.
        request = pb.CreateCreditsProfitRequest(
            credits_profit=pb.CreditsProfit(name="Next", profit_ppm=0, is_active=True)
        )
        request.effective_time.FromMilliseconds(manual_clock.now_ms - 1)
        with refused("FIELD_INVALID") as refusal:
            await clocked.credits.CreateCreditsProfit(request)
        assert refusal.metadata["field"] == "effective_time"
        request.effective_time.FromMilliseconds(manual_clock.now_ms)
        manual_clock.advance(1_000)
        await clocked.credits.CreateCreditsProfit(request)
        assert await billed(clocked, model.value, manual_clock.now_ms - 1_000) == CREDIT
