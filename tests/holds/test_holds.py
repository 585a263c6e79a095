"""Credits set aside: placed, extended, captured, released, expired; each ends exactly once."""

import asyncio

import grpc
import pytest
from zaaz.common.v1 import error_reason_pb2
from zaaz.credits.v1 import credits_process_service_pb2 as pb
from zaaz.credits.v1 import credits_service_pb2
from zaaz.ledger.v1 import credits_transaction_pb2, grant_pb2, hold_pb2, wallet_pb2
from zaaz.wallet.v1 import wallet_service_pb2

from tests.holds.conftest import CAPTURE_ALL, CAPTURE_REPORTED, HELD_MICROS, Holder, used
from tests.serving import MODEL, ManualClock, Served, new_key, new_user, reason_of, usage_event

CREDIT = 1_000_000
ACTIVE, CAPTURED, RELEASED, EXPIRED = 1, 2, 3, 4


async def refused(call: object) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call  # type: ignore[misc]
    return reason_of(error.value)


async def reverse(served: Served, transaction_id: str) -> None:
    request = credits_service_pb2.ReverseCreditsTransactionRequest(
        request_id=new_key(), id=transaction_id
    )
    await served.credits.ReverseCreditsTransaction(request)


async def carry_debt(served: Served, user_id: str) -> None:
    wallet = wallet_pb2.Wallet(
        user_id=user_id, overdraft_policy=wallet_pb2.OVERDRAFT_POLICY_CARRY_DEBT
    )
    await served.wallets.UpdateWallet(
        wallet_service_pb2.UpdateWalletRequest(request_id=new_key(), wallet=wallet)
    )


class TestPlacing:
    async def test_sets_credits_aside(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        answer = await holder.authorize(user_id, labels={"team": "a"}, ttl_seconds=60)
        hold, wallet = answer.hold, answer.wallet
        assert hold.held_micros == answer.estimate.credits_micros == HELD_MICROS
        assert (hold.state, hold.user_id, hold.labels["team"]) == (ACTIVE, user_id, "a")
        assert hold.expires_time.ToMilliseconds() == hold.created_time.ToMilliseconds() + 60_000
        assert (wallet.credits_micros, wallet.held_micros) == (CREDIT, HELD_MICROS)
        assert wallet.available_micros == CREDIT - HELD_MICROS
        assert [kept.id for kept in wallet.holds] == [hold.id]
        entry = (await holder.served.transactions(user_id))[-1]
        assert (entry.id, entry.hold_id) == (hold.id, hold.id)
        assert entry.decrease_reason == credits_transaction_pb2.DECREASE_REASON_HOLD
        assert (entry.credits_micros, entry.held_change_micros) == (0, HELD_MICROS)
        await holder.served.assert_sound(user_id)

    async def test_what_is_held_cannot_be_spent(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        await holder.place(user_id)
        spend = holder.served.consume(user_id, CREDIT - HELD_MICROS + 1)
        assert await refused(spend) == "INSUFFICIENT_CREDITS"
        await holder.served.consume(user_id, CREDIT - HELD_MICROS)

    async def test_usage_does_not_touch_what_is_held(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(HELD_MICROS + 10)
        hold = await holder.place(user_id)
        (result,) = await holder.served.record(usage_event(user_id))
        assert result.receipt.shortfall_micros == HELD_MICROS - 10
        answer = await holder.capture(hold.id)
        assert answer.transaction.credits_micros == HELD_MICROS
        assert answer.wallet.credits_micros == 0
        await holder.served.assert_sound(user_id)

    async def test_replay_returns_the_first_result(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(HELD_MICROS)
        key = new_key()
        first = await holder.authorize(user_id, request_id=key)
        again = await holder.authorize(user_id, request_id=key)
        assert again.allowed
        assert again == first
        assert (await holder.served.wallet(user_id)).held_micros == HELD_MICROS
        changed = holder.authorize(user_id, request_id=key, max_output_tokens=501)
        assert await refused(changed) == "REQUEST_ID_REUSED"

    async def test_a_refusal_is_not_remembered(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(HELD_MICROS - 1)
        key = new_key()
        refusal = await holder.authorize(user_id, request_id=key)
        assert not refusal.allowed
        assert refusal.denials[0].metadata["shortfall_micros"] == "1"
        await holder.served.grant(user_id, 1)
        assert (await holder.authorize(user_id, request_id=key)).allowed

    async def test_so_many_holds_a_wallet(
        self, holder: Holder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("server.ledger.holds.MAX_HOLDS", 2)
        user_id = await holder.served.new_wallet(10 * CREDIT)
        await holder.place(user_id)
        hold = await holder.place(user_id)
        answer = await holder.authorize(user_id)
        request = pb.CheckAccessRequest(user_id=user_id, ai_model=MODEL, max_input_tokens=1)
        seen = await holder.served.process.CheckAccess(request)
        for denials in (answer.denials, seen.denials):
            names = [error_reason_pb2.ErrorReason.Name(denial.reason) for denial in denials]
            assert [name.removeprefix("ERROR_REASON_") for name in names] == ["TOO_MANY_HOLDS"]
        await holder.release(hold.id)
        await holder.place(user_id)

    async def test_without_wallet_or_question(self, holder: Holder) -> None:
        assert await refused(holder.authorize(new_user())) == "WALLET_NOT_FOUND"
        user_id = await holder.served.new_wallet(CREDIT)
        assert await refused(holder.authorize(user_id, ai_model="")) == "FIELD_INVALID"
        assert await refused(holder.authorize(user_id, ai_model="no/such")) == "PRICE_NOT_FOUND"
        unknown = holder.authorize(user_id, feature_endpoint="no.such")
        assert await refused(unknown) == "FEATURE_ENDPOINT_NOT_FOUND"
        assert await refused(holder.authorize(user_id, ttl_seconds=86_401)) == "FIELD_INVALID"


class TestCapture:
    async def test_of_less_frees_the_rest(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        hold = await holder.place(user_id)
        answer = await holder.capture(hold.id, (500, 250), labels={"k": "v"})
        assert answer.hold.state == CAPTURED
        assert answer.hold.captured_micros == answer.transaction.credits_micros == HELD_MICROS // 2
        assert answer.transaction.held_change_micros == -HELD_MICROS
        assert answer.transaction.decrease_reason == credits_transaction_pb2.DECREASE_REASON_CAPTURE
        assert answer.transaction.usage_key == f"hold:{hold.id}"
        assert answer.transaction.labels["k"] == "v"
        assert answer.wallet.credits_micros == CREDIT - HELD_MICROS // 2
        assert answer.wallet.held_micros == 0
        assert (await holder.get(hold.id)).ended_by_id == answer.transaction.id
        await holder.served.assert_sound(user_id)

    async def test_of_more_takes_what_is_available_then_records_the_rest(
        self, holder: Holder
    ) -> None:
        user_id = await holder.served.new_wallet(HELD_MICROS + 100)
        hold = await holder.place(user_id)
        answer = await holder.capture(hold.id, (2_000, 1_000))
        assert answer.transaction.credits_micros == HELD_MICROS + 100
        assert answer.transaction.shortfall_micros == HELD_MICROS - 100
        assert answer.wallet.credits_micros == 0
        await holder.served.assert_sound(user_id)

    async def test_of_more_carries_debt_where_the_wallet_does(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(HELD_MICROS)
        await carry_debt(holder.served, user_id)
        hold = await holder.place(user_id)
        answer = await holder.capture(hold.id, (2_000, 1_000))
        assert answer.wallet.credits_micros == -HELD_MICROS
        assert answer.wallet.debt_micros == HELD_MICROS
        await holder.served.assert_sound(user_id)

    async def test_leaves_other_holds_whole(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(2 * HELD_MICROS)
        one, other = await holder.place(user_id), await holder.place(user_id)
        first = await holder.capture(one.id, (4_000, 2_000))
        assert first.transaction.credits_micros == HELD_MICROS
        assert first.wallet.held_micros == first.wallet.credits_micros == HELD_MICROS
        second = await holder.capture(other.id)
        assert second.transaction.shortfall_micros == 0
        await holder.served.assert_sound(user_id)

    async def test_without_usage_bills_what_was_reported_or_all(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(10 * CREDIT)
        reported = await holder.place(user_id)
        extended = await holder.extend(reported.id, reported=used(100, 50))
        assert extended.hold.reported_micros == HELD_MICROS // 10
        assert (await holder.capture(reported.id)).transaction.credits_micros == HELD_MICROS // 10
        silent = await holder.place(user_id)
        assert (await holder.capture(silent.id)).transaction.credits_micros == HELD_MICROS

    async def test_happens_once(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        hold = await holder.place(user_id)
        key = new_key()
        first = await holder.capture(hold.id, (10, 5), request_id=key)
        assert await holder.capture(hold.id, (10, 5), request_id=key) == first
        changed = holder.capture(hold.id, (11, 5), request_id=key)
        assert await refused(changed) == "REQUEST_ID_REUSED"
        assert await refused(holder.capture(hold.id, (10, 5))) == "HOLD_ENDED"
        assert await refused(holder.release(hold.id)) == "HOLD_ENDED"
        assert await refused(holder.extend(hold.id, ttl_seconds=5)) == "HOLD_ENDED"
        assert await refused(holder.capture(new_user())) == "HOLD_NOT_FOUND"

    async def test_under_a_key_of_ones_own(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(10 * CREDIT)
        event = usage_event(user_id, usage_key="chat-1")
        await holder.served.record(event)
        hold = await holder.place(user_id)
        assert await refused(holder.capture(hold.id, usage_key="chat-1")) == "USAGE_KEY_REUSED"
        answer = await holder.capture(hold.id, usage_key="chat-2")
        assert answer.transaction.usage_key == "chat-2"

    async def test_can_be_reversed(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        hold = await holder.place(user_id)
        captured = await holder.capture(hold.id)
        await reverse(holder.served, captured.transaction.id)
        assert (await holder.served.wallet(user_id)).credits_micros == CREDIT
        assert await refused(reverse(holder.served, hold.id)) == "NOT_REVERSIBLE"
        await holder.served.assert_sound(user_id)

    async def test_races_end_a_hold_once(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        hold = await holder.place(user_id)
        ends = [holder.capture(hold.id, (10, 5)) for _ in range(8)]
        ends += [holder.release(hold.id) for _ in range(8)]  # type: ignore[misc]
        answers = await asyncio.gather(*ends, return_exceptions=True)
        errors = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert len(errors) == 15
        assert {reason_of(error) for error in errors} == {"HOLD_ENDED"}
        assert (await holder.served.wallet(user_id)).held_micros == 0
        await holder.served.assert_sound(user_id)


class TestByUsageEvent:
    async def test_captures(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        hold = await holder.place(user_id)
        event = usage_event(user_id, hold_id=hold.id, input_tokens=500, output_tokens=250)
        (result,) = await holder.served.record(event)
        assert result.receipt.credits_micros == HELD_MICROS // 2
        (again,) = await holder.served.record(event)
        assert again.receipt.duplicate
        assert (await holder.get(hold.id)).state == CAPTURED
        assert (await holder.served.wallet(user_id)).held_micros == 0
        await holder.served.assert_sound(user_id)

    async def test_of_a_hold_that_was_billed_is_refused(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        hold = await holder.place(user_id)
        await holder.capture(hold.id)
        (result,) = await holder.served.record(usage_event(user_id, hold_id=hold.id))
        assert "HOLD_ENDED" in str(result.error)

    async def test_of_a_hold_that_was_released_is_billed_like_any(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        hold = await holder.place(user_id)
        await holder.release(hold.id)
        (result,) = await holder.served.record(usage_event(user_id, hold_id=hold.id))
        assert result.receipt.credits_micros == HELD_MICROS

    async def test_of_no_hold_or_anothers(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        other = await holder.served.new_wallet(CREDIT)
        hold = await holder.place(other)
        for hold_id in (new_user(), hold.id):
            (result,) = await holder.served.record(usage_event(user_id, hold_id=hold_id))
            assert "HOLD_NOT_FOUND" in str(result.error)


class TestRelease:
    async def test_frees_all(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        hold = await holder.place(user_id)
        answer = await holder.release(hold.id, reason="changed my mind")
        assert (answer.hold.state, answer.hold.captured_micros) == (RELEASED, 0)
        assert answer.wallet.available_micros == CREDIT
        entry = (await holder.served.transactions(user_id))[-1]
        assert entry.increase_source == grant_pb2.INCREASE_SOURCE_RELEASE
        assert (entry.credits_micros, entry.held_change_micros) == (0, -HELD_MICROS)
        assert entry.reason == "changed my mind"
        await holder.served.assert_sound(user_id)

    async def test_pays_the_debt_with_what_is_free_again(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(HELD_MICROS)
        await carry_debt(holder.served, user_id)
        hold = await holder.place(user_id)
        (result,) = await holder.served.record(usage_event(user_id, output_tokens=0))
        owed = result.receipt.credits_micros
        assert (await holder.served.wallet(user_id)).debt_micros == owed
        wallet = (await holder.release(hold.id)).wallet
        assert (wallet.debt_micros, wallet.credits_micros) == (0, HELD_MICROS - owed)
        await holder.served.assert_sound(user_id)


class TestExtension:
    async def test_of_time_and_bounds(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        hold = await holder.place(user_id, ttl_seconds=60)
        answer = await holder.extend(hold.id, ttl_seconds=600, max_output_tokens=750)
        assert answer.hold.expires_time.ToSeconds() >= hold.expires_time.ToSeconds() + 539
        assert answer.hold.max_input_tokens == 1_000
        assert answer.hold.held_micros > HELD_MICROS
        assert answer.wallet.held_micros == answer.hold.held_micros
        lower = await holder.extend(hold.id, max_output_tokens=1)
        assert lower.hold.held_micros == answer.hold.held_micros
        await holder.served.assert_sound(user_id)

    async def test_beyond_the_means(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(HELD_MICROS)
        hold = await holder.place(user_id)
        more = holder.extend(hold.id, max_output_tokens=501)
        assert await refused(more) == "INSUFFICIENT_CREDITS"
        assert (await holder.get(hold.id)).held_micros == HELD_MICROS


class TestTimePasses:
    async def test_release(self, timed: Holder, manual_clock: ManualClock) -> None:
        user_id = await timed.served.new_wallet(CREDIT)
        hold = await timed.place(user_id, ttl_seconds=10)
        manual_clock.advance(10_000)
        seen = await timed.served.wallet(user_id)
        assert (seen.held_micros, seen.available_micros) == (0, CREDIT)
        shown = await timed.get(hold.id)
        assert (shown.state, shown.captured_micros) == (EXPIRED, 0)
        assert shown.ended_time == hold.expires_time
        listed = await timed.served.process.ListHolds(
            pb.ListHoldsRequest(user_id=user_id, state=hold_pb2.HOLD_STATE_ACTIVE)
        )
        assert not listed.holds
        assert await refused(timed.capture(hold.id)) == "HOLD_ENDED"
        await timed.served.consume(user_id, CREDIT)
        expiry = (await timed.served.transactions(user_id))[-2]
        assert expiry.increase_source == grant_pb2.INCREASE_SOURCE_HOLD_EXPIRY
        assert expiry.occurred_time == hold.expires_time
        await timed.served.assert_sound(user_id)

    @pytest.mark.parametrize(
        ("policy", "billed"), [(CAPTURE_REPORTED, HELD_MICROS // 10), (CAPTURE_ALL, HELD_MICROS)]
    )
    async def test_capture(
        self, timed: Holder, manual_clock: ManualClock, policy: int, billed: int
    ) -> None:
        user_id = await timed.served.new_wallet(CREDIT)
        hold = await timed.place(user_id, ttl_seconds=10, disconnect_policy=policy)
        await timed.extend(hold.id, reported=used(100, 50))
        manual_clock.advance(10_000)
        assert (await timed.served.wallet(user_id)).credits_micros == CREDIT - billed
        await timed.served.grant(user_id, 1)
        entry = (await timed.served.transactions(user_id))[-2]
        assert entry.decrease_reason == credits_transaction_pb2.DECREASE_REASON_CAPTURE
        assert entry.credits_micros == billed
        shown = await timed.get(hold.id)
        assert (shown.state, shown.captured_micros) == (EXPIRED, billed)
        (late,) = await timed.served.record(
            usage_event(user_id, hold_id=hold.id, occurred_ms=manual_clock.now_ms)
        )
        assert "HOLD_ENDED" in str(late.error)
        await timed.served.assert_sound(user_id)

    async def test_late_usage_of_a_hold_that_ran_out_is_billed(
        self, timed: Holder, manual_clock: ManualClock
    ) -> None:
        user_id = await timed.served.new_wallet(CREDIT)
        hold = await timed.place(user_id, ttl_seconds=10)
        manual_clock.advance(10_000)
        (result,) = await timed.served.record(
            usage_event(user_id, hold_id=hold.id, occurred_ms=manual_clock.now_ms)
        )
        assert result.receipt.credits_micros == HELD_MICROS
        await timed.served.assert_sound(user_id)

    async def test_held_credits_outlive_their_grant(
        self, timed: Holder, manual_clock: ManualClock
    ) -> None:
        user_id = await timed.served.new_wallet()
        expires = pb.CostEstimate().priced_time
        expires.FromMilliseconds(manual_clock.now_ms + 1_000)
        await timed.served.grant(user_id, CREDIT, expires_time=expires)
        hold = await timed.place(user_id, ttl_seconds=60)
        manual_clock.advance(2_000)
        wallet = await timed.served.wallet(user_id)
        assert wallet.credits_micros == wallet.held_micros == HELD_MICROS
        assert wallet.available_micros == 0
        answer = await timed.capture(hold.id, (500, 250))
        assert answer.transaction.credits_micros == HELD_MICROS // 2
        # The other half was only kept for the hold.
        assert answer.wallet.credits_micros == 0
        kinds = [row.decrease_reason for row in await timed.served.transactions(user_id)][-3:]
        assert kinds == [
            credits_transaction_pb2.DECREASE_REASON_EXPIRY,
            credits_transaction_pb2.DECREASE_REASON_CAPTURE,
            credits_transaction_pb2.DECREASE_REASON_EXPIRY,
        ]
        await timed.served.assert_sound(user_id)

    async def test_others_do_not_spend_what_outlived_its_grant(
        self, timed: Holder, manual_clock: ManualClock
    ) -> None:
        user_id = await timed.served.new_wallet()
        expires = pb.CostEstimate().priced_time
        expires.FromMilliseconds(manual_clock.now_ms + 1_000)
        await timed.served.grant(user_id, HELD_MICROS, expires_time=expires)
        await timed.place(user_id, ttl_seconds=60)
        await timed.served.grant(user_id, 100)
        manual_clock.advance(2_000)
        assert (await timed.served.wallet(user_id)).available_micros == 100
        await timed.served.consume(user_id, 100)
        manual_clock.advance(60_000)
        assert (await timed.served.wallet(user_id)).credits_micros == 0
        await timed.served.assert_sound(user_id)


class TestListHolds:
    async def test_newest_first_page_by_page(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(10 * CREDIT)
        placed = [(await holder.place(user_id)).id for _ in range(5)]
        await holder.release(placed[0])
        seen: list[str] = []
        token = ""
        while True:
            page = await holder.served.process.ListHolds(
                pb.ListHoldsRequest(user_id=user_id, page_size=2, page_token=token)
            )
            seen += [hold.id for hold in page.holds]
            token = page.next_page_token
            if not token:
                break
        assert sorted(seen) == sorted(placed)
        active = await holder.served.process.ListHolds(
            pb.ListHoldsRequest(user_id=user_id, state=hold_pb2.HOLD_STATE_ACTIVE)
        )
        assert {hold.id for hold in active.holds} == set(placed[1:])
        other = pb.ListHoldsRequest(user_id=new_user(), page_token=page.next_page_token or "x")
        assert await refused(holder.served.process.ListHolds(other)) == "PAGE_TOKEN_INVALID"
