"""RecordUsage, on a real server."""

from typing import Any

import pytest
from bson import ObjectId
from google.protobuf.timestamp_pb2 import Timestamp
from zaaz.credits.v1 import usage_service_pb2 as pb
from zaaz.ledger.v1.wallet_pb2 import OVERDRAFT_POLICY_CARRY_DEBT, Wallet
from zaaz.wallet.v1 import wallet_service_pb2

from tests.ledger.calls import PRICE, reasons, refused
from tests.serving import (
    ManualClock,
    Served,
    connected,
    make_key,
    new_key,
    new_user,
    usage_event,
)

DAY_MS = 86_400_000
INT64_MAX = 2**63 - 1


def without(event: pb.UsageEvent, field: str) -> pb.UsageEvent:
    event.ClearField(field)  # type: ignore[arg-type]
    return event


async def record(served: Served, request_id: str, *events: pb.UsageEvent) -> Any:
    request = pb.RecordUsageRequest(request_id=request_id, events=events)
    return (await served.usage.RecordUsage(request)).results


class TestReceipts:
    async def test_come_in_the_order_of_the_events(self, served: Served) -> None:
        one, other = await served.new_wallet(10 * PRICE), await served.new_wallet(PRICE)
        results = await served.record(
            usage_event(one), usage_event(other), usage_event(one), usage_event(other)
        )
        assert [r.receipt.balance_after_micros for r in results] == [9 * PRICE, 0, 8 * PRICE, 0]
        assert [r.receipt.shortfall_micros for r in results] == [0, 0, 0, PRICE]
        assert [r.receipt.credits_micros for r in results] == [PRICE] * 4
        assert not any(r.receipt.duplicate for r in results)
        rows = {row.id: row for row in await served.transactions(one)}
        assert rows[results[0].receipt.credits_transaction_id].credits_micros == PRICE
        for user_id in (one, other):
            await served.assert_sound(user_id)

    async def test_usage_without_tokens_is_free_and_recorded(self, served: Served) -> None:
        user_id = await served.new_wallet()
        (result,) = await served.record(usage_event(user_id, input_tokens=0, output_tokens=0))
        assert result.receipt.credits_micros == 0
        assert (await served.wallet(user_id)).sequence == 1
        await served.assert_sound(user_id)

    async def test_takes_a_thousand(self, served: Served) -> None:
        user_id = await served.new_wallet(1_000 * PRICE)
        results = await served.record(*(usage_event(user_id) for _ in range(1_000)))
        assert reasons(results) == [""] * 1_000
        assert (await served.wallet(user_id)).credits_micros == 0
        await served.assert_sound(user_id)


class TestDuplicates:
    async def test_are_billed_once_and_receive_the_first_result(self, served: Served) -> None:
        user_id = await served.new_wallet(10 * PRICE)
        event, other = usage_event(user_id), usage_event(user_id)
        first, again, _ = await served.record(event, event, other)
        (later,) = await served.record(event)
        for duplicate in (again, later):
            assert duplicate.receipt.duplicate
            duplicate.receipt.duplicate = False
            assert duplicate == first
        assert (await served.wallet(user_id)).credits_micros == 8 * PRICE

    @pytest.mark.parametrize(
        "change",
        [
            {"input_tokens": 999},
            {"output_tokens": 499},
            {"cache_read_tokens": 1},
            {"cache_write_tokens": 1},
            {"labels": {"a": "b"}},
            {"ai_model": "openai/gpt-4o"},
            {"occurred_ms": 1},
        ],
    )
    async def test_of_another_payload_are_refused(
        self, served: Served, change: dict[str, Any]
    ) -> None:
        user_id = await served.new_wallet(10 * PRICE)
        event = usage_event(user_id)
        if "occurred_ms" in change:
            change = {"occurred_ms": event.occurred_time.ToMilliseconds() - 1}
        fields: dict[str, Any] = {"occurred_ms": event.occurred_time.ToMilliseconds(), **change}
        other = usage_event(user_id, usage_key=event.usage_key, **fields)
        together = await served.record(event, other)
        assert reasons(together) == ["", "USAGE_KEY_REUSED"]
        assert reasons(await served.record(other)) == ["USAGE_KEY_REUSED"]
        assert (await served.wallet(user_id)).credits_micros == 9 * PRICE

    async def test_keys_are_the_users_own(self, served: Served) -> None:
        one, other = await served.new_wallet(PRICE), await served.new_wallet(PRICE)
        key = new_key()
        results = await served.record(
            usage_event(one, usage_key=key), usage_event(other, usage_key=key)
        )
        assert [result.receipt.duplicate for result in results] == [False, False]

    async def test_keys_are_the_clients_own(self, served: Served, mongo_url: str) -> None:
        user_id = await served.new_wallet(2 * PRICE)
        event = usage_event(user_id)
        await served.record(event)
        # Even a client whose name is like those of the ledger's own entries.
        for client_id in ("another", "expiry", "reversal"):
            key = await make_key(mongo_url, "test_served", client_id, ["usage.write"])
            async with connected(served.target, key) as client:
                (result,) = await client.record(event)
                assert not result.receipt.duplicate
        await served.assert_sound(user_id)


class TestRefusedEvents:
    async def test_leave_their_neighbours_and_the_wallet_alone(self, served: Served) -> None:
        user_id = await served.new_wallet(10 * PRICE)
        stranger = new_user()
        now_ms = usage_event(user_id).occurred_time.ToMilliseconds()
        bad = {
            "unknown user": (usage_event(stranger), "WALLET_NOT_FOUND"),
            "unknown model": (usage_event(user_id, ai_model="no/model"), "PRICE_NOT_FOUND"),
            "unknown endpoint": (
                usage_event(user_id, feature_endpoint="chat"),
                "FEATURE_ENDPOINT_NOT_FOUND",
            ),
            "endpoint alone": (
                usage_event(user_id, feature_endpoint="chat", ai_model=""),
                "FEATURE_ENDPOINT_NOT_FOUND",
            ),
            "neither": (usage_event(user_id, ai_model=""), "FIELD_INVALID"),
            "hold": (usage_event(user_id, hold_id=str(ObjectId())), "HOLD_NOT_FOUND"),
            "no hold": (usage_event(user_id, hold_id="1"), "MALFORMED_ID"),
            "no user": (usage_event("nobody"), "MALFORMED_ID"),
            "empty key": (usage_event(user_id, usage_key=""), "FIELD_INVALID"),
            "long key": (usage_event(user_id, usage_key="k" * 129), "FIELD_INVALID"),
            "negative": (usage_event(user_id, output_tokens=-1), "FIELD_INVALID"),
            "overflow": (usage_event(user_id, input_tokens=INT64_MAX), "AMOUNT_OUT_OF_RANGE"),
            "labels": (
                usage_event(user_id, labels={str(n): "" for n in range(17)}),
                "FIELD_INVALID",
            ),
            "no time": (without(usage_event(user_id), "occurred_time"), "FIELD_INVALID"),
            "future": (
                usage_event(user_id, occurred_ms=now_ms + 3_600_000),
                "OCCURRED_TIME_OUT_OF_RANGE",
            ),
            "ancient": (
                usage_event(user_id, occurred_ms=now_ms - 36 * DAY_MS),
                "OCCURRED_TIME_OUT_OF_RANGE",
            ),
        }
        events, expected = zip(*bad.values(), strict=True)
        good = [usage_event(user_id) for _ in events]
        mixed = [event for pair in zip(good, events, strict=True) for event in pair]
        results = await served.record(*mixed)
        assert dict(zip(bad, reasons(results)[1::2], strict=True)) == dict(
            zip(bad, expected, strict=True)
        )
        assert reasons(results)[::2] == [""] * len(good)
        assert [r.error.index for r in results[1::2]] == list(range(1, len(mixed), 2))
        kept = dict(zip(bad, (r.error.kept for r in results[1::2]), strict=True))
        contract = {"no hold", "no user", "empty key", "long key", "negative", "labels", "no time"}
        assert {name for name, is_kept in kept.items() if not is_kept} == contract
        assert (await served.wallet(user_id)).sequence == 1 + len(good)
        with refused("WALLET_NOT_FOUND"):
            await served.wallet(stranger)
        await served.assert_sound(user_id)

    async def test_times_are_taken_up_to_their_bounds(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id, now_ms = await clocked.new_wallet(PRICE), manual_clock()
        taken = (now_ms - 35 * DAY_MS, now_ms + 300_000)
        results = await clocked.record(*(usage_event(user_id, occurred_ms=t) for t in taken))
        assert reasons(results) == ["", ""]
        beyond = (taken[0] - 1, taken[1] + 1)
        results = await clocked.record(*(usage_event(user_id, occurred_ms=t) for t in beyond))
        assert reasons(results) == ["OCCURRED_TIME_OUT_OF_RANGE"] * 2

    @pytest.mark.parametrize(
        "moment",
        [
            Timestamp(seconds=2**62),
            Timestamp(seconds=-(2**62)),
            Timestamp(seconds=253_402_300_799, nanos=2**31 - 1),
        ],
    )
    async def test_absurd_times_are_refused_like_others(
        self, served: Served, moment: Timestamp
    ) -> None:
        user_id = await served.new_wallet(PRICE)
        event = without(usage_event(user_id), "occurred_time")
        event.occurred_time.CopyFrom(moment)
        (result,) = await served.record(event)
        assert reasons([result])[0] in ("OCCURRED_TIME_OUT_OF_RANGE", "FIELD_INVALID")

    async def test_debt_that_would_leave_int64(self, served: Served) -> None:
        """Costs that fit by themselves and not together."""
        user_id = await served.new_wallet()
        wallet = Wallet(user_id=user_id, overdraft_policy=OVERDRAFT_POLICY_CARRY_DEBT)
        await served.wallets.UpdateWallet(wallet_service_pb2.UpdateWalletRequest(wallet=wallet))
        tokens = 3 * 10**16
        events = [usage_event(user_id, input_tokens=tokens, output_tokens=0) for _ in range(3)]
        results = await served.record(*events)
        assert reasons(results) == ["", "AMOUNT_OUT_OF_RANGE", "AMOUNT_OUT_OF_RANGE"]
        await served.assert_sound(user_id)


class TestRequests:
    async def test_a_request_id_stands_for_its_events(self, served: Served) -> None:
        user_id, request_id = await served.new_wallet(10 * PRICE), new_key()
        events = [usage_event(user_id, labels={"b": "2", "a": "1"}), usage_event(user_id)]
        first = await record(served, request_id, *events)
        again = await record(served, request_id, *events)
        assert [r.receipt.duplicate for r in again] == [True, True]
        assert [r.receipt.credits_transaction_id for r in again] == [
            r.receipt.credits_transaction_id for r in first
        ]
        with refused("REQUEST_ID_REUSED") as refusal:
            await record(served, request_id, events[0])
        assert refusal.metadata == {"request_id": request_id}
        with refused("REQUEST_ID_REUSED"):
            await served.consume(user_id, 1, request_id)
        assert (await served.wallet(user_id)).credits_micros == 8 * PRICE

    async def test_refuses_none_and_too_many(self, served: Served) -> None:
        user_id = await served.new_wallet(PRICE)
        with refused("FRAME_SIZE_INVALID") as refusal:
            await served.record()
        assert refusal.metadata == {"events": "0", "limit": "1000"}
        with refused("FRAME_SIZE_INVALID") as refusal:
            await served.record(*[usage_event(user_id)] * 1_001)
        assert refusal.metadata["events"] == "1001"
        assert (await served.wallet(user_id)).credits_micros == PRICE

    async def test_refuses_a_bad_request_id(self, served: Served) -> None:
        with refused("FIELD_INVALID"):
            await record(served, "a b", usage_event(await served.new_wallet()))
