"""Bad events, each beside good ones; and whose a request_id is. More in tests/credits."""

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from zaaz.credits.v1 import usage_service_pb2 as pb

from tests.ledger.calls import PRICE, reasons, refused
from tests.serving import Served, error_info, new_key, new_user, usage_event
from tests.usage.partners import partner

INT64_MAX = 2**63 - 1
FUNDS = 100 * PRICE


KEPT, NOT_KEPT = True, False
BAD: dict[str, tuple[dict[str, Any], str, bool]] = {
    "unknown model": ({"ai_model": "openai/gpt-0"}, "PRICE_NOT_FOUND", KEPT),
    "user without a wallet": ({"user_id": "f" * 24}, "WALLET_NOT_FOUND", KEPT),
    "endpoint": ({"feature_endpoint": "chat.send"}, "FEATURE_ENDPOINT_NOT_FOUND", KEPT),
    "endpoint alone": (
        {"feature_endpoint": "chat.send", "ai_model": ""},
        "FEATURE_ENDPOINT_NOT_FOUND",
        KEPT,
    ),
    "unknown hold": ({"hold_id": "a" * 24}, "HOLD_NOT_FOUND", KEPT),
    "neither model nor endpoint": ({"ai_model": ""}, "FIELD_INVALID", KEPT),
    "too dear": (
        {"ai_model": "anthropic/claude-3-opus-latest", "input_tokens": INT64_MAX},
        "AMOUNT_OUT_OF_RANGE",
        KEPT,
    ),
    "tokens beyond int64 in sum": (
        dict.fromkeys(
            ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"), INT64_MAX
        ),
        "AMOUNT_OUT_OF_RANGE",
        KEPT,
    ),
    "ancient": ({"occurred_ms": 1}, "OCCURRED_TIME_OUT_OF_RANGE", KEPT),
    "before 1970": ({"occurred_ms": -1}, "OCCURRED_TIME_OUT_OF_RANGE", KEPT),
    "year 9999": ({"occurred_ms": 253_402_300_799_999}, "OCCURRED_TIME_OUT_OF_RANGE", KEPT),
    "negative input": ({"input_tokens": -1}, "FIELD_INVALID", NOT_KEPT),
    "negative output": ({"output_tokens": -INT64_MAX - 1}, "FIELD_INVALID", NOT_KEPT),
    "negative cache reads": ({"cache_read_tokens": -1}, "FIELD_INVALID", NOT_KEPT),
    "negative cache writes": ({"cache_write_tokens": -1}, "FIELD_INVALID", NOT_KEPT),
    "empty key": ({"usage_key": ""}, "FIELD_INVALID", NOT_KEPT),
    "over-long key": ({"usage_key": "k" * 129}, "FIELD_INVALID", NOT_KEPT),
    "no user": ({"user_id": ""}, "MALFORMED_ID", NOT_KEPT),
    "malformed user": ({"user_id": "F" * 24}, "MALFORMED_ID", NOT_KEPT),
    "user with a line end": ({"user_id": "f" * 24 + "\n"}, "MALFORMED_ID", NOT_KEPT),
    "over-long user": ({"user_id": "f" * 25}, "MALFORMED_ID", NOT_KEPT),
    "malformed hold": ({"hold_id": "hold"}, "MALFORMED_ID", NOT_KEPT),
    "over-long model": ({"ai_model": "m" * 201}, "FIELD_INVALID", NOT_KEPT),
    "too many labels": (
        {"labels": {str(place): "" for place in range(17)}},
        "FIELD_INVALID",
        NOT_KEPT,
    ),
    "empty label key": ({"labels": {"": "x"}}, "FIELD_INVALID", NOT_KEPT),
    "label key with a space": ({"labels": {"a b": "x"}}, "FIELD_INVALID", NOT_KEPT),
    "label key with a dollar": ({"labels": {"$set": "x"}}, "FIELD_INVALID", NOT_KEPT),
    "over-long label key": ({"labels": {"k" * 64: "x"}}, "FIELD_INVALID", NOT_KEPT),
    "over-long label": ({"labels": {"k": "x" * 256}}, "FIELD_INVALID", NOT_KEPT),
}


class TestBadEvents:
    @pytest.mark.parametrize("name", BAD)
    async def test_is_refused_alone(self, served: Served, name: str) -> None:
        fields, reason, kept = BAD[name]
        user_id = await served.new_wallet(FUNDS)
        bad = usage_event(**{"user_id": user_id, **fields})
        results = await served.record(usage_event(user_id), bad, usage_event(user_id))
        assert reasons(results) == ["", reason, ""]
        error = results[1].error
        assert (error.index, error.kept) == (1, kept)
        assert error.error.message
        wallet = await served.wallet(user_id)
        assert (wallet.credits_micros, wallet.sequence) == (FUNDS - 2 * PRICE, 3)
        await served.assert_sound(user_id)
        request = pb.ListRejectedUsageRequest(user_id=user_id)
        if kept and bad.user_id == user_id:
            (row,) = (await served.usage.ListRejectedUsage(request)).rejected_usages
            assert (row.event, row.error) == (bad, error.error)
        else:
            assert not (await served.usage.ListRejectedUsage(request)).rejected_usages

    async def test_without_a_time(self, served: Served) -> None:
        user_id = await served.new_wallet(FUNDS)
        timeless = usage_event(user_id)
        timeless.ClearField("occurred_time")
        results = await served.record(timeless, usage_event(user_id))
        assert reasons(results) == ["FIELD_INVALID", ""]
        assert (await served.wallet(user_id)).credits_micros == FUNDS - PRICE

    @pytest.mark.parametrize(
        "moment",
        [
            Timestamp(seconds=INT64_MAX),
            Timestamp(seconds=-INT64_MAX - 1),
            Timestamp(seconds=1, nanos=2**31 - 1),
            Timestamp(nanos=-(2**31)),
        ],
        ids=str,
    )
    async def test_with_a_time_beyond_every_calendar(
        self, served: Served, moment: Timestamp
    ) -> None:
        user_id = await served.new_wallet(FUNDS)
        timeless = usage_event(user_id)
        timeless.occurred_time.CopyFrom(moment)
        results = await served.record(timeless, usage_event(user_id))
        assert reasons(results)[1] == ""
        assert reasons(results)[0] in ("OCCURRED_TIME_OUT_OF_RANGE", "FIELD_INVALID")
        # What is kept of it can be shown and tried again.
        rows = await served.usage.ListRejectedUsage(pb.ListRejectedUsageRequest(user_id=user_id))
        assert len(rows.rejected_usages) == results[0].error.kept
        assert (await served.wallet(user_id)).credits_micros == FUNDS - PRICE

    async def test_violations_name_the_field(self, served: Served) -> None:
        user_id = await served.new_wallet(FUNDS)
        (result,) = await served.record(usage_event(user_id, usage_key="", input_tokens=-1))
        assert error_info(result.error.error).metadata["field"] == "usage_key"

    async def test_all_of_a_thousand_are_refused_by_index(self, served: Served) -> None:
        user_id = await served.new_wallet(FUNDS)
        events = [usage_event(user_id, usage_key="") for _ in range(1_000)]
        events[500] = usage_event(user_id)
        results = await served.record(*events)
        assert reasons(results) == ["FIELD_INVALID"] * 500 + [""] + ["FIELD_INVALID"] * 499
        assert [r.error.index for r in results[501:]] == list(range(501, 1_000))
        assert (await served.wallet(user_id)).credits_micros == FUNDS - PRICE


class TestRequestId:
    async def test_is_one_for_all_kinds_of_calls(self, served: Served) -> None:
        user_id, request_id = await served.new_wallet(FUNDS), new_key()
        await served.consume(user_id, PRICE, request_id)
        with refused("REQUEST_ID_REUSED"):
            await served.usage.RecordUsage(
                pb.RecordUsageRequest(request_id=request_id, events=[usage_event(user_id)])
            )
        used = new_key()
        await served.usage.RecordUsage(
            pb.RecordUsageRequest(request_id=used, events=[usage_event(user_id)])
        )
        with refused("REQUEST_ID_REUSED"):
            await served.consume(user_id, PRICE, used)
        assert (await served.wallet(user_id)).credits_micros == FUNDS - 2 * PRICE

    async def test_belongs_to_its_client(self, served: Served) -> None:
        user_id, request_id = await served.new_wallet(FUNDS), new_key()
        async with partner(served) as other:
            for client in (served, other):
                request = pb.RecordUsageRequest(
                    request_id=request_id, events=[usage_event(user_id)]
                )
                assert reasons((await client.usage.RecordUsage(request)).results) == [""]
        assert (await served.wallet(user_id)).credits_micros == FUNDS - 2 * PRICE

    async def test_refusals_are_not_remembered(self, served: Served) -> None:
        user_id, request_id = new_user(), new_key()
        first = pb.RecordUsageRequest(request_id=request_id, events=[usage_event(user_id)])
        assert reasons((await served.usage.RecordUsage(first)).results) == ["WALLET_NOT_FOUND"]
        await served.new_wallet(FUNDS, user_id)
        other = pb.RecordUsageRequest(request_id=request_id, events=[usage_event(user_id)])
        assert reasons((await served.usage.RecordUsage(other)).results) == [""]
        with refused("REQUEST_ID_REUSED"):
            await served.usage.RecordUsage(first)
