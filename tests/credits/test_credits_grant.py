"""GrantCredits, on a real server."""

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from zaaz.ledger.v1 import credits_transaction_pb2 as types
from zaaz.ledger.v1.grant_pb2 import INCREASE_SOURCE_PAYMENT, INCREASE_SOURCE_REVERSAL

from tests.ledger.calls import at, refused
from tests.serving import ManualClock, Served, new_key, new_user

INT64_MAX = 2**63 - 1


class TestGrantCredits:
    async def test_makes_a_grant_and_a_transaction(self, served: Served) -> None:
        user_id = await served.new_wallet(1)
        request_id = new_key()
        answer = await served.grant(
            user_id,
            40,
            source=INCREASE_SOURCE_PAYMENT,
            priority=3,
            reason="an order",
            labels={"order": "4711", "a.b/c": ""},
            request_id=request_id,
        )
        made, wallet = answer.transaction, answer.wallet
        assert made.type == types.TRANSACTION_TYPE_INCREASE
        assert made.decrease_reason == types.DECREASE_REASON_UNSPECIFIED
        assert (made.credits_micros, made.sequence, made.balance_after_micros) == (40, 2, 41)
        assert (made.increase_source, made.grant_priority) == (INCREASE_SOURCE_PAYMENT, 3)
        assert (made.client_id, made.request_id) == ("tests", request_id)
        assert (made.reason, made.labels) == ("an order", {"order": "4711", "a.b/c": ""})
        assert made.counter_account == "source:payment"
        assert [(m.grant_id, m.credits_micros) for m in made.grant_movements] == [(made.id, 40)]
        grant = wallet.grants[-1]
        assert (grant.id, grant.original_micros, grant.remaining_micros) == (made.id, 40, 40)
        assert not grant.HasField("expires_time")
        assert (wallet.chain, wallet.sequence) == (made.chain, made.sequence)
        assert wallet == await served.wallet(user_id)

    async def test_a_replay_returns_the_first_result(self, served: Served) -> None:
        user_id, request_id = await served.new_wallet(), new_key()
        first = await served.grant(user_id, 5, request_id=request_id)
        await served.grant(user_id, 6)
        assert await served.grant(user_id, 5, request_id=request_id) == first
        assert (await served.wallet(user_id)).credits_micros == 11

    async def test_a_replay_after_the_grant_expired_returns_the_first_result(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet()
        fields: dict[str, Any] = {"request_id": new_key(), "expires_time": at(manual_clock() + 10)}
        first = await clocked.grant(user_id, 5, **fields)
        manual_clock.advance(20)
        assert await clocked.grant(user_id, 5, **fields) == first

    @pytest.mark.parametrize(
        "other",
        [
            {"credits_micros": 6},
            {"priority": 1},
            {"reason": "another"},
            {"labels": {"a": "2"}},
            {"source": INCREASE_SOURCE_PAYMENT},
        ],
    )
    async def test_a_request_id_stands_for_one_payload(
        self, served: Served, other: dict[str, Any]
    ) -> None:
        user_id = await served.new_wallet()
        fields: dict[str, Any] = {
            "credits_micros": 5,
            "request_id": new_key(),
            "labels": {"a": "1"},
        }
        await served.grant(user_id, **fields)
        with refused("REQUEST_ID_REUSED") as refusal:
            await served.grant(user_id, **{**fields, **other})
        assert refusal.metadata == {"request_id": fields["request_id"]}
        assert (await served.wallet(user_id)).credits_micros == 5

    async def test_a_request_id_reused_for_another_user(self, served: Served) -> None:
        one, other, request_id = await served.new_wallet(), await served.new_wallet(), new_key()
        await served.grant(one, 5, request_id=request_id)
        with refused("REQUEST_ID_REUSED"):
            await served.grant(other, 5, request_id=request_id)

    async def test_labels_are_the_same_in_any_order(self, served: Served) -> None:
        user_id, request_id = await served.new_wallet(), new_key()
        labels = {f"label-{number}": str(number) for number in range(16)}
        first = await served.grant(user_id, 5, request_id=request_id, labels=labels)
        backwards = dict(reversed(labels.items()))
        again = await served.grant(user_id, 5, request_id=request_id, labels=backwards)
        assert again == first

    async def test_refuses_an_amount_that_leaves_int64(self, served: Served) -> None:
        user_id = await served.new_wallet(1)
        with refused("AMOUNT_OUT_OF_RANGE") as refusal:
            await served.grant(user_id, INT64_MAX)
        assert refusal.metadata == {"field": "credits_micros"}
        assert (await served.wallet(user_id)).credits_micros == 1
        await served.grant(user_id, INT64_MAX - 1)
        assert (await served.wallet(user_id)).credits_micros == INT64_MAX

    async def test_refuses_who_has_no_wallet(self, served: Served) -> None:
        with refused("WALLET_NOT_FOUND"):
            await served.grant(new_user(), 5)

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"credits_micros": 0}, "FIELD_INVALID"),
            ({"credits_micros": -5}, "FIELD_INVALID"),
            ({"source": 0}, "FIELD_INVALID"),
            ({"source": INCREASE_SOURCE_REVERSAL}, "FIELD_INVALID"),
            ({"priority": -1}, "FIELD_INVALID"),
            ({"priority": 1_001}, "FIELD_INVALID"),
            ({"request_id": ""}, "FIELD_INVALID"),
            ({"reason": "x" * 501}, "FIELD_INVALID"),
            ({"labels": {"a b": ""}}, "FIELD_INVALID"),
            ({"labels": {str(n): "" for n in range(17)}}, "FIELD_INVALID"),
            ({"user_id": "nobody"}, "MALFORMED_ID"),
            ({"expires_time": Timestamp(seconds=1)}, "FIELD_INVALID"),
            ({"expires_time": Timestamp(seconds=-1)}, "FIELD_INVALID"),
            ({"expires_time": Timestamp(seconds=253_402_300_800)}, "FIELD_INVALID"),
            ({"expires_time": Timestamp(seconds=253_402_300_799, nanos=10**9)}, "FIELD_INVALID"),
            ({"expires_time": Timestamp(seconds=253_402_300_799, nanos=-1)}, "FIELD_INVALID"),
        ],
    )
    async def test_refuses_bad_fields(
        self, served: Served, fields: dict[str, Any], reason: str
    ) -> None:
        user_id = await served.new_wallet(1)
        with refused(reason):
            await served.grant(**{"user_id": user_id, "credits_micros": 5, **fields})
        assert (await served.wallet(user_id)).sequence == 1

    async def test_takes_the_last_moment_there_is(self, served: Served) -> None:
        user_id = await served.new_wallet()
        last = Timestamp(seconds=253_402_300_799, nanos=999_000_000)
        answer = await served.grant(user_id, 5, expires_time=last)
        assert answer.transaction.grant_expires_time == last
        assert await served.wallet(user_id) == answer.wallet


class TestBounds:
    async def test_a_wallet_holds_so_many_grants(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("server.ledger.posting.MAX_GRANTS", 3)
        user_id = await served.new_wallet()
        for _ in range(3):
            await served.grant(user_id, 1)
        with refused("TOO_MANY_GRANTS") as refusal:
            await served.grant(user_id, 1)
        assert refusal.metadata == {"limit": "3"}
        # One of them spent makes room for another.
        await served.consume(user_id, 1)
        await served.grant(user_id, 1)
        assert len((await served.wallet(user_id)).grants) == 3
        await served.assert_sound(user_id)
