"""A hold's use is billed by the prices of the moment it was placed, whatever they are later."""

from typing import Any

import pytest
from zaaz.credits.v1 import credits_process_service_pb2 as pb

from tests.catalog.calls import change_endpoint, delete_endpoint, new_endpoint
from tests.credits.priced import (
    activate,
    change_model,
    change_profit,
    delete_model,
    dollars,
    new_model,
    new_profit,
    new_setting,
)
from tests.holds.conftest import CAPTURE_ALL, CAPTURE_REPORTED, Holder, used
from tests.serving import ManualClock, Served, usage_event

CREDIT = 1_000_000
OLD = 1_200_000 + 70
"""1,000 input tokens at a dollar per million, 1,000 credits a dollar and 20 %, and 70."""


class Priced:
    """An endpoint and a model whose prices change."""

    def __init__(self, model: Any, endpoint: Any, profit: Any, setting: Any) -> None:
        self.model, self.endpoint, self.profit, self.setting = model, endpoint, profit, setting

    @property
    def asked(self) -> dict[str, Any]:
        """What is held: 1,000 input tokens, which come to OLD."""
        return {
            "ai_model": self.model.value,
            "feature_endpoint": self.endpoint.value,
            "max_input_tokens": 1_000,
            "max_output_tokens": 0,
        }

    async def change(self, served: Served) -> None:
        """Everything that has a part in it costs more from now on."""
        await change_model(served, self.model.id, prices=dollars(3))
        await change_endpoint(served, self.endpoint.id, credits_micros=7_000)
        await change_profit(served, self.profit.id, profit_ppm=500_000)
        await activate(served, self.setting.id)


@pytest.fixture
async def priced(clocked: Served, manual_clock: ManualClock) -> Priced:
    model = await new_model(clocked, 1)
    endpoint = await new_endpoint(clocked, 70)
    profit = await new_profit(clocked, 200_000, model.id)
    setting = await new_setting(clocked, 2 * CREDIT)
    manual_clock.advance(1_000)
    return Priced(model, endpoint, profit, setting)


class TestPinned:
    async def test_capture(self, timed: Holder, priced: Priced, manual_clock: ManualClock) -> None:
        user_id = await timed.served.new_wallet(100 * CREDIT)
        holds = [await timed.place(user_id, **priced.asked) for _ in range(4)]
        assert {hold.held_micros for hold in holds} == {OLD}
        manual_clock.advance(1_000)
        await priced.change(timed.served)
        newer = await timed.authorize(user_id, **priced.asked)
        assert newer.hold.held_micros == 2_250_000 + 7_000
        whole = await timed.capture(holds[0].id)
        assert whole.transaction.credits_micros == OLD
        half = await timed.capture(holds[1].id, (500, 0))
        assert half.transaction.credits_micros == 600_000 + 70
        more = await timed.capture(holds[2].id, (2_000, 0))
        assert more.transaction.credits_micros == 2_400_000 + 70
        event = usage_event(
            user_id,
            hold_id=holds[3].id,
            ai_model=priced.model.value,
            feature_endpoint=priced.endpoint.value,
            output_tokens=0,
            occurred_ms=manual_clock(),
        )
        (result,) = await timed.served.record(event)
        assert result.receipt.credits_micros == OLD
        await timed.served.assert_sound(user_id)

    async def test_extension_and_report(
        self, timed: Holder, priced: Priced, manual_clock: ManualClock
    ) -> None:
        user_id = await timed.served.new_wallet(100 * CREDIT)
        hold = await timed.place(
            user_id, disconnect_policy=CAPTURE_REPORTED, ttl_seconds=60, **priced.asked
        )
        manual_clock.advance(1_000)
        await priced.change(timed.served)
        extended = await timed.extend(hold.id, max_input_tokens=3_000, reported=used(500, 0))
        assert extended.hold.held_micros == 3_600_000 + 70
        assert extended.hold.reported_micros == 600_000 + 70
        assert extended.hold.priced_time == hold.priced_time
        manual_clock.advance(60_000)
        seen = await timed.get(hold.id)
        assert seen.captured_micros == 600_000 + 70
        await timed.served.assert_sound(user_id)

    async def test_though_what_was_used_is_gone(
        self, timed: Holder, priced: Priced, manual_clock: ManualClock
    ) -> None:
        user_id = await timed.served.new_wallet(100 * CREDIT)
        hold = await timed.place(user_id, **priced.asked)
        other = await timed.place(user_id, disconnect_policy=CAPTURE_ALL, **priced.asked)
        manual_clock.advance(1_000)
        await delete_endpoint(timed.served, priced.endpoint.id)
        model = await new_model(timed.served, 1)
        by_model = await timed.place(user_id, ai_model=model.value, max_input_tokens=1_000)
        manual_clock.advance(1_000)
        await delete_model(timed.served, model.id)
        answer = await timed.capture(hold.id, (1_000, 0))
        assert answer.transaction.credits_micros == OLD
        assert (await timed.capture(by_model.id)).hold.state == 2
        manual_clock.advance(3_600_000)
        assert (await timed.get(other.id)).captured_micros == OLD
        await timed.served.assert_sound(user_id)


class TestPriceThatThisProcessLearnsOfLate:
    async def test_does_not_move_what_was_pinned(
        self, timed: Holder, manual_clock: ManualClock
    ) -> None:
        """Another process may set a price for the very moment at which a hold was placed."""
        served = timed.served
        model = await new_model(served, 1)
        user_id = await served.new_wallet(100 * CREDIT)
        asked = {"ai_model": model.value, "max_input_tokens": 1_000, "max_output_tokens": 0}
        one = await timed.place(user_id, **asked)
        other = await timed.place(user_id, **asked)
        manual_clock.advance(-5)
        await change_model(served, model.id, prices=dollars(3))
        manual_clock.advance(5)
        captured = await timed.capture(one.id, (1_000, 0))
        assert captured.transaction.credits_micros == one.held_micros
        extended = await timed.extend(other.id, max_input_tokens=2_000)
        assert extended.hold.held_micros == 2 * other.held_micros
        event = usage_event(
            user_id,
            hold_id=other.id,
            ai_model=model.value,
            output_tokens=0,
            occurred_ms=manual_clock.now_ms,
        )
        (result,) = await served.record(event)
        assert result.receipt.credits_micros == other.held_micros
        explained = await served.process.ExplainCharge(
            pb.ExplainChargeRequest(credits_usage_id=captured.transaction.id)
        )
        assert explained.matches
