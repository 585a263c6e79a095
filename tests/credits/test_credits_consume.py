"""ConsumeCredits and BatchConsumeCredits, on a real server."""

from typing import Any

import pytest
from bson import ObjectId
from zaaz.credits.v1 import credits_service_pb2 as pb
from zaaz.ledger.v1 import credits_transaction_pb2 as types

from tests.conftest import MongoClient
from tests.ledger.calls import at, reasons, refused
from tests.serving import ManualClock, Served, new_key, new_user

INT64_MAX = 2**63 - 1


def consumption(user_id: str, credits_micros: int, **fields: Any) -> pb.ConsumeCreditsRequest:
    values = {"request_id": new_key(), **fields}
    return pb.ConsumeCreditsRequest(user_id=user_id, credits_micros=credits_micros, **values)


async def batch(
    served: Served, *requests: pb.ConsumeCreditsRequest
) -> list[pb.ConsumeCreditsResult]:
    answer = await served.credits.BatchConsumeCredits(
        pb.BatchConsumeCreditsRequest(requests=requests)
    )
    return list(answer.results)


class TestConsumeCredits:
    async def test_answers_the_transaction_and_the_wallet_after_it(self, served: Served) -> None:
        user_id = await served.new_wallet(10)
        request = consumption(user_id, 4, reason="a call", labels={"team": "a"})
        answer = await served.credits.ConsumeCredits(request)
        made = answer.transaction
        assert made.type == types.TRANSACTION_TYPE_DECREASE
        assert made.decrease_reason == types.DECREASE_REASON_CONSUMPTION
        assert made.increase_source == 0
        assert (made.credits_micros, made.balance_after_micros, made.sequence) == (4, 6, 2)
        assert (made.client_id, made.request_id) == ("tests", request.request_id)
        assert (made.reason, dict(made.labels)) == ("a call", {"team": "a"})
        assert made.counter_account == "revenue:consumption"
        assert answer.wallet == await served.wallet(user_id)
        assert (await served.transactions(user_id))[1:] == [made]

    async def test_burns_by_priority_then_expiry_then_age(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id, now_ms = await clocked.new_wallet(), manual_clock()
        made = {}
        grants: dict[str, dict[str, Any]] = {
            "last": {"priority": 1},
            "never": {},
            "later": {"expires_time": at(now_ms + 2_000)},
            "sooner": {"expires_time": at(now_ms + 1_000)},
            "younger": {"expires_time": at(now_ms + 1_000)},
        }
        for name, fields in grants.items():
            grant = await clocked.grant(user_id, 10, **fields)
            made[grant.transaction.id] = name
        answer = await clocked.consume(user_id, 45)
        moves = [(made[m.grant_id], m.credits_micros) for m in answer.transaction.grant_movements]
        assert moves == [
            ("sooner", -10),
            ("younger", -10),
            ("later", -10),
            ("never", -10),
            ("last", -5),
        ]
        assert [(made[g.id], g.remaining_micros) for g in answer.wallet.grants] == [("last", 5)]

    async def test_refuses_when_short_with_the_shortfall(self, served: Served) -> None:
        user_id = await served.new_wallet(10)
        before = await served.wallet(user_id)
        with refused("INSUFFICIENT_CREDITS") as refusal:
            await served.consume(user_id, 14)
        assert refusal.metadata == {
            "available_micros": "10",
            "required_micros": "14",
            "shortfall_micros": "4",
        }
        assert await served.wallet(user_id) == before

    async def test_a_replay_returns_the_first_result(self, served: Served) -> None:
        user_id, request_id = await served.new_wallet(10), new_key()
        first = await served.consume(user_id, 4, request_id)
        await served.consume(user_id, 1)
        assert await served.consume(user_id, 4, request_id) == first
        with refused("REQUEST_ID_REUSED"):
            await served.consume(user_id, 5, request_id)
        assert (await served.wallet(user_id)).credits_micros == 5

    async def test_a_refusal_is_not_remembered(self, served: Served) -> None:
        user_id, request_id = await served.new_wallet(3), new_key()
        with refused("INSUFFICIENT_CREDITS"):
            await served.consume(user_id, 4, request_id)
        await served.grant(user_id, 1)
        await served.consume(user_id, 4, request_id)
        assert (await served.wallet(user_id)).credits_micros == 0

    async def test_refuses_a_wallet_whose_subscription_has_expired(
        self, clocked: Served, manual_clock: ManualClock, mongo_client: MongoClient
    ) -> None:
        user_id = new_user()
        # Subscriptions come with a later service; until then nothing sets this but a row.
        await clocked.new_wallet(10, user_id)
        expiry = at(manual_clock() - 1)
        await _expire_subscription(mongo_client, user_id, expiry.ToDatetime())
        with refused("WALLET_EXPIRED") as refusal:
            await clocked.consume(user_id, 1)
        assert refusal.metadata["expires_time"].endswith("Z")
        assert (await clocked.wallet(user_id)).available_micros == 0

    async def test_endpoints_are_refused_until_there_are_any(self, served: Served) -> None:
        user_id = await served.new_wallet(10)
        with refused("FEATURE_ENDPOINT_NOT_FOUND") as refusal:
            await served.credits.ConsumeCredits(consumption(user_id, 1, feature_endpoint="chat"))
        assert refusal.metadata == {"feature_endpoint": "chat"}

    async def test_refuses_who_has_no_wallet(self, served: Served) -> None:
        with refused("WALLET_NOT_FOUND"):
            await served.consume(new_user(), 1)

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"credits_micros": 0}, "FIELD_INVALID"),
            ({"credits_micros": -1}, "FIELD_INVALID"),
            ({"request_id": ""}, "FIELD_INVALID"),
            ({"request_id": "ü"}, "FIELD_INVALID"),
            ({"feature_endpoint": "x" * 201}, "FIELD_INVALID"),
            ({"user_id": ""}, "MALFORMED_ID"),
        ],
    )
    async def test_refuses_bad_fields(
        self, served: Served, fields: dict[str, Any], reason: str
    ) -> None:
        user_id = await served.new_wallet(10)
        with refused(reason):
            await served.credits.ConsumeCredits(
                consumption(**{"user_id": user_id, "credits_micros": 1, **fields})
            )
        assert (await served.wallet(user_id)).credits_micros == 10

    async def test_refuses_more_than_there_could_ever_be(self, served: Served) -> None:
        user_id = await served.new_wallet(10)
        with refused("INSUFFICIENT_CREDITS"):
            await served.consume(user_id, INT64_MAX)


class TestBatchConsumeCredits:
    async def test_a_refusal_does_not_touch_its_neighbours(self, served: Served) -> None:
        rich, poor = await served.new_wallet(10), await served.new_wallet(1)
        results = await batch(
            served,
            consumption(rich, 4),
            consumption(poor, 2),
            consumption(new_user(), 1),
            consumption(rich, 7),
            consumption(rich, 6),
            consumption(rich, 1, feature_endpoint="chat"),
        )
        assert reasons(results) == [
            "",
            "INSUFFICIENT_CREDITS",
            "WALLET_NOT_FOUND",
            "INSUFFICIENT_CREDITS",
            "",
            "FEATURE_ENDPOINT_NOT_FOUND",
        ]
        assert results[0].response.transaction.balance_after_micros == 6
        assert results[4].response.wallet.credits_micros == 0
        assert (await served.wallet(poor)).credits_micros == 1
        await served.assert_sound(rich)

    async def test_takes_a_thousand_in_their_order(self, served: Served) -> None:
        user_id = await served.new_wallet(1_000)
        results = await batch(served, *(consumption(user_id, 1) for _ in range(1_000)))
        after = [result.response.transaction.balance_after_micros for result in results]
        assert after == list(range(999, -1, -1))
        assert (await served.wallet(user_id)).sequence == 1_001
        await served.assert_sound(user_id)

    async def test_duplicates_inside_one_batch_count_once(self, served: Served) -> None:
        user_id = await served.new_wallet(10)
        request = consumption(user_id, 3)
        other = consumption(user_id, 4, request_id=request.request_id)
        results = await batch(served, request, request, other, request)
        assert reasons(results) == ["", "", "REQUEST_ID_REUSED", ""]
        assert results[1] == results[0]
        assert results[3] == results[0]
        assert (await served.wallet(user_id)).credits_micros == 7

    async def test_a_replayed_batch_returns_the_first_results(self, served: Served) -> None:
        user_id = await served.new_wallet(10)
        requests = [consumption(user_id, 5), consumption(user_id, 5), consumption(user_id, 1)]
        first = await batch(served, *requests)
        assert reasons(first) == ["", "", "INSUFFICIENT_CREDITS"]
        assert await batch(served, *requests) == first
        # Part of it in another batch, together with something new.
        await served.grant(user_id, 2)
        mixed = await batch(served, requests[1], consumption(user_id, 2), requests[0])
        assert mixed[0] == first[1]
        assert mixed[2] == first[0]
        assert (await served.wallet(user_id)).credits_micros == 0
        await served.assert_sound(user_id)

    async def test_refuses_none_and_too_many(self, served: Served) -> None:
        user_id = await served.new_wallet(10)
        with refused("FIELD_INVALID"):
            await batch(served)
        with refused("FIELD_INVALID"):
            await batch(served, *(consumption(user_id, 1) for _ in range(1_001)))
        assert (await served.wallet(user_id)).credits_micros == 10

    async def test_one_bad_request_refuses_the_call(self, served: Served) -> None:
        user_id = await served.new_wallet(10)
        with refused("FIELD_INVALID"):
            await batch(served, consumption(user_id, 1), consumption(user_id, -1))
        assert (await served.wallet(user_id)).credits_micros == 10


async def _expire_subscription(client: MongoClient, user_id: str, moment: Any) -> None:
    """On whichever of the tests' databases has the user; versions move as with any write."""
    for name in await client.list_database_names():
        if name.startswith("test_"):
            await client[name]["user_wallets"].update_one(
                {"user_id": ObjectId(user_id)},
                {"$set": {"expires_time": moment}, "$inc": {"version": 1}},
            )
