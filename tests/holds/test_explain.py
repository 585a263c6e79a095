"""ExplainCharge: any charge is told from its event to its entry, and reckoned again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from zaaz.catalog.v1 import feature_endpoint_pb2
from zaaz.credits.v1 import ai_model_pb2, billing_setting_pb2, credits_profit_pb2
from zaaz.credits.v1 import credits_process_service_pb2 as pb

from tests.catalog.calls import change_endpoint, new_endpoint
from tests.credits.priced import (
    activate,
    change_model,
    change_profit,
    dollars,
    new_model,
    new_profit,
    new_setting,
)
from tests.holds.conftest import CAPTURE_ALL, HELD_MICROS, Holder
from tests.ledger.calls import refused
from tests.serving import (
    MODEL,
    ManualClock,
    Served,
    connected,
    make_key,
    new_key,
    new_user,
    usage_event,
)

CREDIT = 1_000_000
INTERNAL = {"input_tokens", "output_tokens", "cache_read_tokens", "credit_price", "margin"}


async def explain(served: Served, **fields: Any) -> pb.ExplainChargeResponse:
    answer: pb.ExplainChargeResponse = await served.process.ExplainCharge(
        pb.ExplainChargeRequest(**fields)
    )
    return answer


def names(answer: pb.ExplainChargeResponse) -> list[str]:
    return [step.name for step in answer.steps]


def text(answer: pb.ExplainChargeResponse, name: str) -> str:
    (step,) = (step for step in answer.steps if step.name == name)
    return str(step.text)


def assert_sound(answer: pb.ExplainChargeResponse) -> None:
    """It comes to what was billed, and its steps add up to it."""
    assert answer.matches
    charged = answer.transaction.credits_micros + answer.transaction.shortfall_micros
    assert answer.recomputed_credits_micros == answer.usage.credits_micros == charged
    assert answer.usage.id == answer.transaction.id
    burned = sum(
        int(step.values["credits_micros"]) for step in answer.steps if step.name == "grant"
    )
    assert -burned == answer.transaction.credits_micros
    for step in answer.steps:
        assert step.text.endswith(".")


@asynccontextmanager
async def partner_of(served: Served, mongo_url: str, client_id: str) -> AsyncIterator[Served]:
    key = await make_key(
        mongo_url, "test_served", client_id, ["credits.read", "credits.write", "usage.write"]
    )
    async with connected(served.target, key) as partner:
        yield partner


class TestUsage:
    async def test_by_key_and_by_id(self, served: Served) -> None:
        user_id = await served.new_wallet(300_000)
        await served.grant(user_id, CREDIT)
        event = usage_event(user_id, usage_key="chat-7", cache_read_tokens=200)
        (result,) = await served.record(event)
        answer = await explain(served, usage_key="chat-7", user_id=user_id)
        assert_sound(answer)
        assert answer.transaction.id == result.receipt.credits_transaction_id
        assert answer == await explain(served, credits_usage_id=answer.usage.id)
        assert names(answer) == [
            "event",
            "input_tokens",
            "cache_read_tokens",
            "output_tokens",
            "credit_price",
            "margin",
            "rounding",
            "total",
            "grant",
            "grant",
            "balance",
        ]
        assert answer.recomputed_credits_micros == result.receipt.credits_micros

    async def test_reads_well(self, served: Served) -> None:
        user_id = await served.new_wallet(2 * CREDIT)
        await served.record(usage_event(user_id, usage_key="chat-8"))
        answer = await explain(served, usage_key="chat-8", user_id=user_id)
        assert MODEL in text(answer, "event")
        told = text(answer, "input_tokens")
        assert told == "1,000 input tokens at 0.15 USD per million cost 0.00015 USD."
        told = text(answer, "output_tokens")
        assert told == "500 output tokens at 0.6 USD per million cost 0.0003 USD."
        assert text(answer, "credit_price").startswith("1,000 credits cost 1 USD, so ")
        assert "is 0.45 credits" in text(answer, "credit_price")
        assert text(answer, "margin") == "The margin of 20 % adds 0.09 credits."
        assert "0.18 for input and 0.36 for output" in text(answer, "rounding")
        assert text(answer, "total") == "In all that is 0.54 credits."
        assert text(answer, "grant").startswith("0.54 credits were taken from grant ")
        assert "transaction 2 of the wallet" in text(answer, "balance")
        assert "a balance of 1.46 credits" in text(answer, "balance")

    async def test_with_an_endpoint_or_nothing_but_one(self, served: Served) -> None:
        user_id = await served.new_wallet(2 * CREDIT)
        endpoint = await new_endpoint(served, 70)
        both = usage_event(user_id, feature_endpoint=endpoint.value)
        alone = usage_event(user_id, feature_endpoint=endpoint.value, ai_model="")
        for event, micros in ((both, HELD_MICROS + 70), (alone, 70)):
            await served.record(event)
            answer = await explain(served, usage_key=event.usage_key, user_id=user_id)
            assert_sound(answer)
            assert answer.recomputed_credits_micros == micros
            assert text(answer, "endpoint") == "The endpoint itself costs 0.00007 credits."
            assert endpoint.value in text(answer, "event")
            assert answer.transaction.decrease_source == endpoint.id
            assert bool(answer.versions.ai_model_history_id) == bool(event.ai_model)
        assert names(answer) == ["event", "endpoint", "total", "grant", "balance"]

    async def test_that_could_not_be_paid(self, served: Served) -> None:
        user_id = await served.new_wallet(HELD_MICROS - 40_000)
        event = usage_event(user_id)
        await served.record(event)
        answer = await explain(served, usage_key=event.usage_key, user_id=user_id)
        assert_sound(answer)
        told = text(answer, "shortfall")
        assert told == "0.04 credits could not be taken: the wallet had no more."

    async def test_that_nothing_paid(self, served: Served) -> None:
        user_id = await served.new_wallet()
        event = usage_event(user_id)
        await served.record(event)
        answer = await explain(served, usage_key=event.usage_key, user_id=user_id)
        assert_sound(answer)
        assert "grant" not in names(answer)


class TestCaptures:
    async def test_under_their_own_key_or_their_hold_s(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(10 * CREDIT)
        endpoint = await new_endpoint(holder.served, 70)
        named, unnamed, by_event = [
            await holder.place(user_id, feature_endpoint=endpoint.value) for _ in range(3)
        ]
        await holder.capture(named.id, (500, 250), usage_key="mine")
        await holder.capture(unnamed.id)
        event = usage_event(user_id, hold_id=by_event.id, feature_endpoint=endpoint.value)
        await holder.served.record(event)
        found = {
            "mine": HELD_MICROS // 2 + 70,
            f"hold:{unnamed.id}": HELD_MICROS + 70,
            event.usage_key: HELD_MICROS + 70,
        }
        for key, micros in found.items():
            answer = await explain(holder.served, usage_key=key, user_id=user_id)
            assert_sound(answer)
            assert answer.recomputed_credits_micros == micros
            assert answer.usage.usage_key == key
            assert answer.versions.feature_endpoint_history_id
        held = await explain(holder.served, usage_key=f"hold:{unnamed.id}", user_id=user_id)
        assert held.versions.priced_time == unnamed.priced_time

    async def test_of_holds_that_ran_out(self, timed: Holder, manual_clock: ManualClock) -> None:
        user_id = await timed.served.new_wallet(CREDIT)
        hold = await timed.place(user_id, ttl_seconds=10, disconnect_policy=CAPTURE_ALL)
        manual_clock.advance(10_000)
        await timed.served.grant(user_id, 1)
        answer = await explain(timed.served, usage_key=f"hold:{hold.id}", user_id=user_id)
        assert_sound(answer)
        assert answer.recomputed_credits_micros == HELD_MICROS

    async def test_what_billed_nothing_is_no_usage(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        hold = await holder.place(user_id)
        await holder.release(hold.id)
        with refused("USAGE_NOT_FOUND"):
            await explain(holder.served, usage_key=f"hold:{hold.id}", user_id=user_id)
        with refused("USAGE_NOT_FOUND"):
            await explain(holder.served, credits_usage_id=hold.id)

    async def test_another_user_s_hold_is_not_found_under_its_key(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        hold = await holder.place(user_id)
        await holder.capture(hold.id)
        with refused("USAGE_NOT_FOUND"):
            await explain(holder.served, usage_key=f"hold:{hold.id}", user_id=new_user())


class TestAfterPriceChanges:
    async def test_still_matches_and_names_the_versions_in_force(
        self, timed: Holder, manual_clock: ManualClock
    ) -> None:
        served = timed.served
        user_id = await served.new_wallet(100 * CREDIT)
        model = await new_model(served, 1)
        endpoint = await new_endpoint(served, 70)
        profit = await new_profit(served, 300_000, model.id)
        setting = await new_setting(served, 2 * CREDIT)
        asked = {"ai_model": model.value, "feature_endpoint": endpoint.value}
        told: list[pb.ExplainChargeResponse] = []
        keys: list[str] = []
        for step in range(3):
            manual_clock.advance(1_000)
            hold = await timed.place(user_id, **asked)
            event = usage_event(user_id, occurred_ms=manual_clock(), **asked)
            await served.record(event)
            manual_clock.advance(1_000)
            await change_model(served, model.id, prices=dollars(step + 2))
            await change_endpoint(served, endpoint.id, credits_micros=100 + step)
            await change_profit(served, profit.id, profit_ppm=400_000 + step)
            if step == 0:
                await activate(served, setting.id)
            # Captured at other prices than it was placed at.
            await timed.capture(hold.id)
            keys += [event.usage_key, f"hold:{hold.id}"]
            for key in keys[-2:]:
                answer = await explain(served, usage_key=key, user_id=user_id)
                assert_sound(answer)
                told.append(answer)
        assert [await explain(served, usage_key=key, user_id=user_id) for key in keys] == told
        for one, other in zip(told[::2], told[1::2], strict=True):
            assert one.versions == other.versions
            await assert_in_force(served, one, model.id)
        assert len({str(answer.versions) for answer in told}) == 3

    async def test_a_late_use_of_a_hold_that_was_given_up(
        self, timed: Holder, manual_clock: ManualClock
    ) -> None:
        """Such a use is billed like any other, and told like it."""
        user_id = await timed.served.new_wallet(100 * CREDIT)
        model = await new_model(timed.served, 1)
        released, expired = [
            await timed.place(user_id, ai_model=model.value, ttl_seconds=10) for _ in range(2)
        ]
        manual_clock.advance(1_000)
        await change_model(timed.served, model.id, prices=dollars(3))
        await timed.release(released.id)
        manual_clock.advance(10_000)
        for hold in (released, expired):
            event = usage_event(
                user_id, hold_id=hold.id, ai_model=model.value, occurred_ms=manual_clock()
            )
            (result,) = await timed.served.record(event)
            answer = await explain(timed.served, usage_key=event.usage_key, user_id=user_id)
            assert_sound(answer)
            assert answer.recomputed_credits_micros == result.receipt.credits_micros


async def assert_in_force(
    served: Served, answer: pb.ExplainChargeResponse, ai_model_id: str
) -> None:
    """The ids are of history rows, whose values are those of the charge."""
    versions, usage = answer.versions, answer.usage
    model = await served.credits.GetAiModelHistory(
        ai_model_pb2.GetAiModelHistoryRequest(id=versions.ai_model_history_id)
    )
    assert model.ai_model_history.ai_model_id == ai_model_id
    profit = await served.credits.GetCreditsProfitHistory(
        credits_profit_pb2.GetCreditsProfitHistoryRequest(id=versions.credits_profit_history_id)
    )
    assert "profit_ppm" in str(profit)
    assert str(usage.profit_ppm) in str(profit)
    setting = await served.credits.GetBillingSettingHistory(
        billing_setting_pb2.GetBillingSettingHistoryRequest(id=versions.billing_setting_history_id)
    )
    assert str(usage.credit_price_micros) in str(setting)
    endpoint = await served.catalog.GetFeatureEndpointHistory(
        feature_endpoint_pb2.GetFeatureEndpointHistoryRequest(
            id=versions.feature_endpoint_history_id
        )
    )
    assert str(usage.endpoint_credits_micros) in str(endpoint)


class TestWhoMayAsk:
    async def test_what_it_cost_us_is_for_administrators(
        self, served: Served, mongo_url: str
    ) -> None:
        user_id = await served.new_wallet(CREDIT)
        async with partner_of(served, mongo_url, "partner") as partner:
            event = usage_event(user_id)
            await partner.record(event)
            shown = await explain(partner, usage_key=event.usage_key, user_id=user_id)
            assert_sound(shown)
            assert not INTERNAL & set(names(shown))
            for field in ("cost_credits_micros", "profit_credits_micros", "profit_ppm"):
                assert not getattr(shown.usage, field)
            assert not shown.usage.credit_price_micros
        full = await explain(
            served, usage_key=event.usage_key, user_id=user_id, client_id="partner"
        )
        assert {"input_tokens", "credit_price", "margin"} <= set(names(full))
        assert full.usage.profit_ppm == 200_000

    async def test_others_usage_is_not_found(self, served: Served, mongo_url: str) -> None:
        user_id = await served.new_wallet(10 * CREDIT)
        event = usage_event(user_id)
        async with partner_of(served, mongo_url, "partner") as partner:
            (result,) = await partner.record(event)
            hold = await Holder(partner).place(user_id)
            await Holder(partner).capture(hold.id)
        usage_id = result.receipt.credits_transaction_id
        asked: list[dict[str, str]] = [
            {"usage_key": event.usage_key, "user_id": user_id},
            {"usage_key": event.usage_key, "user_id": user_id, "client_id": "partner"},
            {"usage_key": f"hold:{hold.id}", "user_id": user_id},
            {"credits_usage_id": usage_id},
        ]
        async with partner_of(served, mongo_url, "stranger") as stranger:
            for fields in asked:
                with refused("USAGE_NOT_FOUND"):
                    await explain(stranger, **fields)
        for fields in asked[1:]:
            assert_sound(await explain(served, **fields))

    async def test_a_hold_s_use_is_its_holder_s_whoever_ended_it(
        self, holder: Holder, served: Served, mongo_url: str
    ) -> None:
        user_id = await served.new_wallet(10 * CREDIT)
        async with partner_of(served, mongo_url, "partner") as partner:
            hold = await Holder(partner).place(user_id)
            answer = await holder.capture(hold.id)
            for fields in (
                {"usage_key": f"hold:{hold.id}", "user_id": user_id},
                {"credits_usage_id": answer.transaction.id},
            ):
                assert_sound(await explain(partner, **fields))

    async def test_what_is_no_usage(self, served: Served) -> None:
        user_id = await served.new_wallet(CREDIT)
        spent = (await served.consume(user_id, 5)).transaction
        for fields in (
            {"credits_usage_id": spent.id},
            {"credits_usage_id": new_user()},
            {"usage_key": new_key(), "user_id": user_id},
            {"usage_key": "hold:nonsense", "user_id": user_id},
        ):
            with refused("USAGE_NOT_FOUND"):
                await explain(served, **fields)
        for fields in ({}, {"usage_key": "x"}, {"user_id": user_id}):
            with refused("FIELD_INVALID"):
                await explain(served, **fields)
