"""RecordFeatureUsage: each interaction is kept once, in full, without its secrets."""

from typing import Any

import pytest
from bson import ObjectId
from google.protobuf.json_format import MessageToDict
from zaaz.catalog.v1 import feature_endpoint_pb2 as endpoint_pb
from zaaz.credits.v1 import feature_usage_log_pb2 as pb

from server.credits.feature_usage.parts import MAX_PART_BYTES
from server.credits.feature_usage.secrets import REDACTED
from tests.conftest import MongoClient
from tests.feature_usage.interactions import (
    ALL_PARTS,
    PARTS,
    interaction,
    json_value,
    keep,
    new_endpoint,
    parts_of,
    row,
    rows_of,
)
from tests.ledger.calls import PRICE, reasons, refused
from tests.serving import ManualClock, Served, error_info, new_key, new_user, usage_event
from tests.usage.partners import partner

DAY_MS = 86_400_000


class TestWhatIsKept:
    async def test_every_field(self, clocked: Served, manual_clock: ManualClock) -> None:
        endpoint = await new_endpoint(clocked, captured_parts=ALL_PARTS)
        manual_clock.advance(1)
        event = interaction(
            new_user(),
            endpoint.value,
            endpoint="/v2/chat/7",
            method="PUT",
            code=418,
            status=pb.FEATURE_USAGE_STATUS_FAILED,
            type="retry",
            email="a@example.com",
            occurred_ms=manual_clock() - 7_003,
            params=json_value({"id": 7.0}),
            query=json_value("page=2"),
            payload=json_value({"a.b": [1.5, None, True, {"$c": "\0 é"}], "": ""}),
            response=json_value([]),
        )
        (result,) = await keep(clocked, event)
        kept = await row(clocked, result.feature_usage_log_id)
        for field in event.DESCRIPTOR.fields:
            assert getattr(kept, field.name) == getattr(event, field.name), field.name
        assert kept.id == result.feature_usage_log_id
        assert kept.feature_endpoint_id == endpoint.id
        assert kept.client_id == "tests"
        assert not kept.is_deleted
        assert not kept.truncated_parts
        assert kept.created_time.ToMilliseconds() == manual_clock()
        assert kept.expires_time.ToMilliseconds() == manual_clock() + 90 * DAY_MS
        assert await rows_of(clocked, event.user_id) == [kept]

    async def test_of_the_endpoint_what_the_event_leaves_out(self, served: Served) -> None:
        endpoint = await new_endpoint(
            served, endpoint="/v1/images", method=endpoint_pb.HTTP_METHOD_PATCH
        )
        (result,) = await keep(served, interaction(new_user(), endpoint.value))
        kept = await row(served, result.feature_usage_log_id)
        assert (kept.endpoint, kept.method) == ("/v1/images", "PATCH")

    @pytest.mark.parametrize("name", PARTS)
    async def test_only_the_parts_that_the_endpoint_names(self, served: Served, name: str) -> None:
        captured = endpoint_pb.CapturedPart.Value(f"CAPTURED_PART_{name.upper()}")
        endpoint = await new_endpoint(served, captured_parts=[captured])
        parts: dict[str, Any] = {part: json_value(part) for part in PARTS}
        (result,) = await keep(served, interaction(new_user(), endpoint.value, **parts))
        kept = await row(served, result.feature_usage_log_id)
        assert parts_of(kept) == [name]
        assert getattr(kept, name).string_value == name

    async def test_no_parts_unless_they_are_asked_for(self, served: Served) -> None:
        endpoint = await new_endpoint(served)
        event = interaction(new_user(), endpoint.value, payload=json_value({"password": "x"}))
        (result,) = await keep(served, event)
        kept = await row(served, result.feature_usage_log_id)
        assert parts_of(kept) == []

    async def test_no_secrets(self, served: Served, mongo_client: MongoClient) -> None:
        endpoint = await new_endpoint(served, captured_parts=ALL_PARTS)
        payload = {
            "messages": [{"role": "user", "content": f"my key is {served.api_key}"}],
            "headers": {"Authorization": "Bearer abcdef123456", "X-Api-Key": "k", "Accept": "*"},
            "card": {"number": "4242 4242 4242 4242", "cvv": 123, "name": "A"},
            "max_tokens": 12,
        }
        event = interaction(
            new_user(),
            endpoint.value,
            endpoint="/v1/chat?token=abcdef123456&page=2",
            payload=json_value(payload),
            response=json_value("Cookie: a=abcdef123456"),
        )
        (result,) = await keep(served, event)
        kept = await row(served, result.feature_usage_log_id)
        assert MessageToDict(kept.payload) == {
            "messages": [{"role": "user", "content": f"my key is {REDACTED}"}],
            "headers": {"Authorization": REDACTED, "X-Api-Key": REDACTED, "Accept": "*"},
            "card": {"number": REDACTED, "cvv": REDACTED, "name": "A"},
            "max_tokens": 12,
        }
        assert kept.response.string_value == REDACTED
        assert kept.endpoint == f"/v1/chat?token={REDACTED}&page=2"
        # Not only hidden: it is nowhere in the database.
        stored = await mongo_client["test_served"]["feature_usage_logs"].find_one(
            {"user_id": ObjectId(event.user_id)}
        )
        text = repr(stored)
        for secret in (served.api_key, "abcdef123456", "4242 ", "123.0"):
            assert secret not in text, secret

    async def test_no_more_of_a_part_than_its_bound(self, served: Served) -> None:
        endpoint = await new_endpoint(served, captured_parts=ALL_PARTS)
        event = interaction(
            new_user(),
            endpoint.value,
            params=json_value("x" * 100),
            payload=json_value({"b": "y" * 100_000, "a": 1.0, "c": 2.0}),
            response=json_value([float(n) for n in range(9_000)]),
        )
        (result,) = await keep(served, event)
        kept = await row(served, result.feature_usage_log_id)
        assert list(kept.truncated_parts) == ["payload", "response"]
        assert kept.params == event.params
        fields = MessageToDict(kept.payload)
        assert set(fields) == {"a", "b"}
        assert MAX_PART_BYTES - 100 < len(fields["b"]) < MAX_PART_BYTES
        numbers: Any = MessageToDict(kept.response)
        assert numbers == [float(n) for n in range(len(numbers))]

    async def test_for_ninety_days(self, served: Served, mongo_client: MongoClient) -> None:
        assert served
        indexes = await mongo_client["test_served"]["feature_usage_logs"].index_information()
        assert indexes["expires_time_1"]["expireAfterSeconds"] == 0


class TestOnce:
    async def test_under_a_key_the_first_is_kept(self, served: Served) -> None:
        endpoint = await new_endpoint(served)
        event = interaction(new_user(), endpoint.value)
        again = pb.FeatureUsageEvent()
        again.CopyFrom(event)
        again.code = 500
        first, beside = await keep(served, event, again)
        (later,) = await keep(served, again)
        assert first == beside == later
        (kept,) = await rows_of(served, event.user_id)
        assert (kept.id, kept.code) == (first.feature_usage_log_id, 200)

    async def test_for_each_user_and_client(self, served: Served) -> None:
        endpoint = await new_endpoint(served)
        one, other = new_user(), new_user()
        key = new_key()
        events = [interaction(user, endpoint.value, usage_key=key) for user in (one, other)]
        ids = {result.feature_usage_log_id for result in await keep(served, *events)}
        async with partner(served) as someone:
            ids |= {result.feature_usage_log_id for result in await keep(someone, *events)}
        assert len(ids) == 4

    async def test_beside_the_event_that_billed_it(self, served: Served) -> None:
        endpoint = await new_endpoint(served)
        user_id = await served.new_wallet(10 * PRICE)
        billed = usage_event(user_id)
        (receipt,) = await served.record(billed)
        event = interaction(user_id, endpoint.value, usage_key=billed.usage_key)
        (result,) = await keep(served, event)
        assert result.feature_usage_log_id == receipt.receipt.credits_transaction_id
        assert (await served.wallet(user_id)).credits_micros == 9 * PRICE
        await served.assert_sound(user_id)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no key": ({"usage_key": ""}, "FIELD_INVALID"),
    "a key too long": ({"usage_key": "k" * 129}, "FIELD_INVALID"),
    "no user": ({"user_id": ""}, "MALFORMED_ID"),
    "a malformed user": ({"user_id": "F" * 24}, "MALFORMED_ID"),
    "no endpoint": ({"feature_endpoint": ""}, "FIELD_INVALID"),
    "an unknown endpoint": ({"feature_endpoint": "no.such"}, "FEATURE_ENDPOINT_NOT_FOUND"),
    "no status": ({"status": 0}, "FIELD_INVALID"),
    "an unknown status": ({"status": 9}, "FIELD_INVALID"),
    "a path too long": ({"endpoint": "/" * 2_001}, "FIELD_INVALID"),
    "a method too long": ({"method": "M" * 17}, "FIELD_INVALID"),
    "a type too long": ({"type": "t" * 101}, "FIELD_INVALID"),
    "an address too long": ({"email": "e" * 255}, "FIELD_INVALID"),
    "ancient": ({"occurred_ms": 1}, "OCCURRED_TIME_OUT_OF_RANGE"),
    "before 1970": ({"occurred_ms": -1}, "OCCURRED_TIME_OUT_OF_RANGE"),
    "year 9999": ({"occurred_ms": 253_402_300_799_999}, "OCCURRED_TIME_OUT_OF_RANGE"),
}


class TestRefused:
    @pytest.mark.parametrize("name", BAD)
    async def test_alone(self, served: Served, name: str) -> None:
        fields, reason = BAD[name]
        endpoint, user_id = await new_endpoint(served), new_user()
        good = [interaction(user_id, endpoint.value) for _ in range(2)]
        bad = interaction(user_id, endpoint.value)
        for field, value in fields.items():
            if field == "occurred_ms":
                bad.occurred_time.FromMilliseconds(value)
            else:
                setattr(bad, field, value)
        results = await keep(served, good[0], bad, good[1])
        assert reasons(results) == ["", reason, ""]
        kept = {kept.usage_key for kept in await rows_of(served, user_id)}
        assert kept == {event.usage_key for event in good}

    async def test_without_a_time(self, served: Served) -> None:
        endpoint = await new_endpoint(served)
        timeless = interaction(new_user(), endpoint.value)
        timeless.ClearField("occurred_time")
        assert reasons(await keep(served, timeless)) == ["FIELD_INVALID"]

    async def test_from_thirty_five_days_to_five_minutes(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        endpoint = await new_endpoint(clocked)
        now_ms = manual_clock()
        times = [now_ms - 35 * DAY_MS - 1, now_ms - 35 * DAY_MS, now_ms + 300_000, now_ms + 300_001]
        events = [interaction(new_user(), endpoint.value, occurred_ms=time) for time in times]
        results = await keep(clocked, *events)
        out = "OCCURRED_TIME_OUT_OF_RANGE"
        assert reasons(results) == [out, "", "", out]
        assert set(error_info(results[0].error).metadata) == {"oldest", "newest"}

    async def test_none_and_too_many(self, served: Served) -> None:
        with refused("FRAME_SIZE_INVALID"):
            await keep(served)
        endpoint = await new_endpoint(served)
        with refused("FRAME_SIZE_INVALID") as refusal:
            await keep(served, *[interaction(new_user(), endpoint.value)] * 1_001)
        assert refusal.metadata["limit"] == "1000"

    async def test_by_a_key_that_may_not_write(self, served: Served) -> None:
        async with partner(served, scopes=["usage.read"]) as reading:
            with refused("SCOPE_MISSING"):
                await keep(reading, interaction(new_user(), "chat.send"))

    async def test_a_thousand_with_large_parts(self, served: Served) -> None:
        endpoint = await new_endpoint(served, captured_parts=ALL_PARTS)
        user_id = new_user()
        events = [
            interaction(user_id, endpoint.value, payload=json_value("x" * 3_500))
            for _ in range(1_000)
        ]
        assert reasons(await keep(served, *events)) == [""] * 1_000
        assert len(await rows_of(served, user_id)) == 1_000
