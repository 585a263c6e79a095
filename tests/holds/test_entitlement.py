"""Who may use what: every reason against a use, by its name and at once."""

from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from zaaz.credits.v1 import credits_process_service_pb2 as pb
from zaaz.credits.v1.credits_process_service_pb2_grpc import CreditsProcessServiceStub

from tests.catalog.calls import (
    change_endpoint,
    change_feature,
    delete_endpoint,
    new_endpoint,
    new_feature,
)
from tests.conftest import MongoClient
from tests.credits.priced import change_model, new_model
from tests.holds.asking import check, denied, reasons, set_wallet
from tests.holds.conftest import HELD_MICROS, Holder, used
from tests.ledger.calls import refused
from tests.serving import (
    MODEL,
    ManualClock,
    Served,
    connected,
    make_key,
    new_key,
    new_user,
    reason_of,
    serving,
)

CREDIT = 1_000_000
WRITE, READ = "credits.write", "credits.read"
SCOPES = {
    "AuthorizeUsage": WRITE,
    "CheckAccess": READ,
    "EstimateCost": READ,
    "ExtendHold": WRITE,
    "CaptureHold": WRITE,
    "ReleaseHold": WRITE,
    "ListHolds": READ,
    "GetHold": READ,
    "ExplainCharge": READ,
}


class TestCatalog:
    async def test_an_endpoint_that_is_switched_off(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        endpoint = await new_endpoint(holder.served, 70, is_active=False)
        found = await denied(holder, user_id, feature_endpoint=endpoint.value)
        assert list(found) == ["FEATURE_ENDPOINT_INACTIVE"]
        only = found["FEATURE_ENDPOINT_INACTIVE"]
        assert only.metadata == {"feature_endpoint": endpoint.value}
        assert endpoint.value in only.message
        await change_endpoint(holder.served, endpoint.id, is_active=True)
        assert not await denied(holder, user_id, feature_endpoint=endpoint.value, ai_model="")

    async def test_a_feature_that_is_switched_off(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        above = await new_feature(holder.served)
        own = await new_feature(holder.served, parent_id=above.id)
        endpoint = await new_endpoint(holder.served, 70, feature_id=own.id)
        for feature in (own, above):
            await change_feature(holder.served, feature.id, is_active=False)
            found = await denied(holder, user_id, feature_endpoint=endpoint.value)
            assert list(found) == ["FEATURE_INACTIVE"]
            assert found["FEATURE_INACTIVE"].metadata == {"feature": feature.value}
            await change_feature(holder.served, feature.id, is_active=True)
        assert (await check(holder, user_id, feature_endpoint=endpoint.value)).allowed

    async def test_a_model_that_is_switched_off(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(10 * CREDIT)
        model = await new_model(holder.served, is_active=False)
        found = await denied(holder, user_id, ai_model=model.value)
        assert list(found) == ["AI_MODEL_INACTIVE"]
        assert found["AI_MODEL_INACTIVE"].metadata == {"ai_model": model.value}
        await change_model(holder.served, model.id, is_active=True)
        assert (await check(holder, user_id, ai_model=model.value)).allowed

    async def test_what_is_unknown_is_an_error(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        endpoint = await new_endpoint(holder.served, 70)
        await delete_endpoint(holder.served, endpoint.id)
        for value in ("no.such:endpoint", endpoint.value):
            with refused("FEATURE_ENDPOINT_NOT_FOUND"):
                await holder.authorize(user_id, feature_endpoint=value)
            with refused("FEATURE_ENDPOINT_NOT_FOUND"):
                await check(holder, user_id, feature_endpoint=value)
            with refused("FEATURE_ENDPOINT_NOT_FOUND"):
                await holder.served.process.EstimateCost(
                    pb.EstimateCostRequest(feature_endpoint=value)
                )
        with refused("WALLET_NOT_FOUND"):
            await check(holder, new_user(), ai_model=MODEL)
        with refused("FIELD_INVALID"):
            await check(holder, user_id)


class TestWords:
    async def test_of_a_free_user(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        feature = await new_feature(holder.served, max_word={"free": 10, "paid": 20})
        by_feature = await new_endpoint(holder.served, feature_id=feature.id)
        by_itself = await new_endpoint(
            holder.served, feature_id=feature.id, max_word={"free": 15, "paid": 30}
        )
        unlimited = await new_endpoint(holder.served)
        for endpoint, limit in ((by_feature, 10), (by_itself, 15)):
            asked = {"feature_endpoint": endpoint.value, "ai_model": ""}
            assert not await denied(holder, user_id, words=limit, **asked)
            found = await denied(holder, user_id, words=limit + 1, **asked)
            assert list(found) == ["WORD_LIMIT_EXCEEDED"]
            told = {"words": str(limit + 1), "limit": str(limit), "tier": "free"}
            assert found["WORD_LIMIT_EXCEEDED"].metadata == told
        asked = {"feature_endpoint": unlimited.value, "ai_model": ""}
        assert not await denied(holder, user_id, words=10**9, **asked)

    async def test_of_a_user_who_pays(
        self, served: Served, newcomer: Holder, mongo_client: MongoClient
    ) -> None:
        user_id = await served.new_wallet(CREDIT)
        await set_wallet(mongo_client, user_id, type=2)
        endpoint = await new_endpoint(newcomer.served, max_word={"free": 10, "paid": 20})
        asked = {"feature_endpoint": endpoint.value, "ai_model": ""}
        assert not await denied(newcomer, user_id, words=20, **asked)
        found = await denied(newcomer, user_id, words=21, **asked)
        told = {"words": "21", "limit": "20", "tier": "paid"}
        assert found["WORD_LIMIT_EXCEEDED"].metadata == told


class TestFunds:
    async def test_says_how_much_is_missing(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(HELD_MICROS)
        endpoint = await new_endpoint(holder.served, 70)
        found = await denied(holder, user_id, feature_endpoint=endpoint.value)
        assert list(found) == ["INSUFFICIENT_CREDITS"]
        metadata = found["INSUFFICIENT_CREDITS"].metadata
        assert metadata["shortfall_micros"] == "70"
        assert metadata["available_micros"] == str(HELD_MICROS)
        await holder.served.grant(user_id, 70)
        answer = await holder.authorize(user_id, feature_endpoint=endpoint.value)
        assert answer.estimate.credits_micros == answer.hold.held_micros == HELD_MICROS + 70
        assert answer.estimate.endpoint_credits_micros == 70
        parts = answer.estimate.input_credits_micros + answer.estimate.output_credits_micros
        assert parts == HELD_MICROS

    async def test_of_an_expired_wallet(
        self, served: Served, newcomer: Holder, mongo_client: MongoClient
    ) -> None:
        user_id = await served.new_wallet(CREDIT)
        await set_wallet(mongo_client, user_id, expires_time=datetime(2020, 1, 1, tzinfo=UTC))
        found = await denied(newcomer, user_id)
        assert list(found) == ["WALLET_EXPIRED"]
        assert found["WALLET_EXPIRED"].metadata["expires_time"].startswith("2020-01-01T00:00:00")
        answer = await check(newcomer, user_id, ai_model=MODEL, max_input_tokens=1)
        assert answer.available_micros == 0

    async def test_a_wallet_that_expires_with_a_hold_pays_for_it(
        self, mongo_url: str, manual_clock: ManualClock, mongo_client: MongoClient
    ) -> None:
        """Whoever was allowed is billed for it; more is not allowed."""
        database = "test_" + new_key()[:16]
        user_id = new_user()
        async with serving(mongo_url, database, manual_clock) as first:
            await first.new_wallet(2 * CREDIT, user_id)
            expires = datetime.fromtimestamp((manual_clock() + 5_000) / 1_000, UTC)
            await set_wallet(mongo_client, user_id, database, expires_time=expires)
        async with serving(mongo_url, database, manual_clock) as second:
            timed = Holder(second)
            hold = await timed.place(user_id, ttl_seconds=60)
            manual_clock.advance(5_000)
            assert list(await denied(timed, user_id)) == ["WALLET_EXPIRED"]
            with refused("WALLET_EXPIRED"):
                await timed.extend(hold.id, max_output_tokens=600)
            await timed.extend(hold.id, reported=used(1, 1))
            answer = await timed.capture(hold.id, (1_000, 500))
            assert answer.transaction.credits_micros == HELD_MICROS
            await second.assert_sound(user_id)
        await mongo_client.drop_database(database)


class TestAllAtOnce:
    async def test_six_reasons(
        self, served: Served, newcomer: Holder, mongo_client: MongoClient
    ) -> None:
        user_id = await served.new_wallet()
        await set_wallet(mongo_client, user_id, expires_time=datetime(2020, 1, 1, tzinfo=UTC))
        feature = await new_feature(newcomer.served, is_active=False, max_word={"free": 10})
        endpoint = await new_endpoint(newcomer.served, 70, feature_id=feature.id, is_active=False)
        model = await new_model(newcomer.served, is_active=False)
        found = await denied(
            newcomer, user_id, feature_endpoint=endpoint.value, ai_model=model.value, words=11
        )
        assert sorted(found) == [
            "AI_MODEL_INACTIVE",
            "FEATURE_ENDPOINT_INACTIVE",
            "FEATURE_INACTIVE",
            "INSUFFICIENT_CREDITS",
            "WALLET_EXPIRED",
            "WORD_LIMIT_EXCEEDED",
        ]
        assert (await newcomer.served.wallet(user_id)).sequence == 0

    async def test_a_denial_leaves_no_trace(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        endpoint = await new_endpoint(holder.served, 70, is_active=False)
        asked = {"feature_endpoint": endpoint.value, "request_id": new_key()}
        for _ in range(2):
            answer = await holder.authorize(user_id, **asked)
            assert reasons(answer.denials) == ["FEATURE_ENDPOINT_INACTIVE"]
            assert not answer.HasField("wallet")
        await change_endpoint(holder.served, endpoint.id, is_active=True)
        assert (await holder.authorize(user_id, **asked)).allowed
        assert (await holder.served.wallet(user_id)).sequence == 2


class TestReplay:
    async def test_is_answered_though_the_use_is_not_allowed_any_more(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(CREDIT)
        endpoint = await new_endpoint(holder.served, 70, max_word={"free": 10})
        asked = {"feature_endpoint": endpoint.value, "request_id": new_key(), "words": 10}
        first = await holder.authorize(user_id, **asked)
        assert first.allowed
        await change_endpoint(holder.served, endpoint.id, is_active=False)
        assert await holder.authorize(user_id, **asked) == first
        with refused("REQUEST_ID_REUSED"):
            await holder.authorize(user_id, **{**asked, "words": 9})
        await delete_endpoint(holder.served, endpoint.id)
        assert await holder.authorize(user_id, **asked) == first
        with refused("FEATURE_ENDPOINT_NOT_FOUND"):
            await holder.authorize(user_id, **{**asked, "request_id": new_key()})
        assert (await holder.served.wallet(user_id)).held_micros == HELD_MICROS + 70

    async def test_is_answered_though_the_funds_are_spent(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(HELD_MICROS)
        key = new_key()
        first = await holder.authorize(user_id, request_id=key)
        await holder.capture(first.hold.id)
        assert await holder.authorize(user_id, request_id=key) == first


class TestEstimate:
    async def test_says_what_is_billed_later(self, holder: Holder) -> None:
        user_id = await holder.served.new_wallet(10 * CREDIT)
        endpoint = await new_endpoint(holder.served, 70)
        tokens: dict[str, Any] = {
            "input_tokens": 1_234,
            "output_tokens": 567,
            "cache_read_tokens": 89,
        }
        answer = await holder.served.process.EstimateCost(
            pb.EstimateCostRequest(
                feature_endpoint=endpoint.value, ai_model=MODEL, cache_write_tokens=7, **tokens
            )
        )
        hold = await holder.place(user_id, feature_endpoint=endpoint.value)
        usage = pb.HoldUsage(cache_write_tokens=7, **tokens)
        captured = await holder.capture(hold.id, usage=usage)
        assert captured.transaction.credits_micros == answer.estimate.credits_micros
        assert captured.transaction.decrease_source == endpoint.id

    async def test_needs_neither_wallet_nor_funds_but_a_question(self, holder: Holder) -> None:
        endpoint = await new_endpoint(holder.served, 70)
        request = pb.EstimateCostRequest(feature_endpoint=endpoint.value)
        answer = await holder.served.process.EstimateCost(request)
        assert answer.estimate.credits_micros == 70
        with refused("FIELD_INVALID"):
            await holder.served.process.EstimateCost(pb.EstimateCostRequest())
        with refused("PRICE_NOT_FOUND"):
            await holder.served.process.EstimateCost(pb.EstimateCostRequest(ai_model="no/such"))
        too_much = pb.EstimateCostRequest(ai_model=MODEL, output_tokens=2**63 - 1)
        with refused("AMOUNT_OUT_OF_RANGE"):
            await holder.served.process.EstimateCost(too_much)


def requests() -> dict[str, Message]:
    """One of each RPC that is refused for what it names, not for how it looks."""
    key, user_id, one = new_key(), new_user(), new_user()
    return {
        "AuthorizeUsage": pb.AuthorizeUsageRequest(request_id=key, user_id=user_id, ai_model=MODEL),
        "CheckAccess": pb.CheckAccessRequest(user_id=user_id, ai_model=MODEL),
        "EstimateCost": pb.EstimateCostRequest(ai_model=MODEL),
        "ExtendHold": pb.ExtendHoldRequest(request_id=key, hold_id=one),
        "CaptureHold": pb.CaptureHoldRequest(request_id=key, hold_id=one),
        "ReleaseHold": pb.ReleaseHoldRequest(request_id=key, hold_id=one),
        "ListHolds": pb.ListHoldsRequest(user_id=user_id),
        "GetHold": pb.GetHoldRequest(id=one),
        "ExplainCharge": pb.ExplainChargeRequest(credits_usage_id=one),
    }


class TestWhoMayCall:
    def test_every_method_is_held_to_it(self) -> None:
        service = pb.DESCRIPTOR.services_by_name["CreditsProcessService"]
        assert {method.name for method in service.methods} == SCOPES.keys() == requests().keys()

    @pytest.mark.parametrize("scope", [READ, WRITE, "usage.write"])
    async def test_a_scope_opens_what_is_its_own(
        self, served: Served, mongo_url: str, scope: str
    ) -> None:
        key = await make_key(mongo_url, "test_served", "partner", [scope])
        async with grpc.aio.insecure_channel(served.target) as channel:
            stub: Any = CreditsProcessServiceStub(channel)
            for name, request in requests().items():
                call = getattr(stub, name)(request, metadata=(("authorization", f"Bearer {key}"),))
                expected = "" if SCOPES[name] == scope else "SCOPE_MISSING"
                assert await reason_beyond(call) == expected, name

    async def test_others_holds_are_not_found(
        self, holder: Holder, served: Served, mongo_url: str
    ) -> None:
        key = await make_key(mongo_url, "test_served", "partner", [WRITE, READ])
        stranger = await make_key(mongo_url, "test_served", "stranger", [WRITE, READ])
        user_id = await served.new_wallet(10 * CREDIT)
        async with (
            connected(served.target, key) as mine,
            connected(served.target, stranger) as theirs,
        ):
            partner, other = Holder(mine), Holder(theirs)
            hold = await partner.place(user_id)
            assert hold.client_id == "partner"
            for call in (other.extend, other.capture, other.release):
                with refused("HOLD_NOT_FOUND"):
                    await call(hold.id)
            # An administrator may, and so may its own client afterwards.
            assert (await holder.extend(hold.id, ttl_seconds=5)).hold.client_id == "partner"
            assert (await partner.release(hold.id)).hold.state == 3
            second = await partner.place(user_id)
            answer = await holder.capture(second.id)
            assert answer.transaction.credits_micros == HELD_MICROS
        await served.assert_sound(user_id)

    async def test_a_request_id_is_its_client_s_own(
        self, holder: Holder, served: Served, mongo_url: str
    ) -> None:
        key = await make_key(mongo_url, "test_served", "partner", [WRITE])
        user_id = await served.new_wallet(10 * CREDIT)
        request_id = new_key()
        async with connected(served.target, key) as mine:
            one = await Holder(mine).place(user_id, request_id=request_id)
            other = await holder.place(user_id, request_id=request_id)
        assert one.id != other.id


async def reason_beyond(call: Any) -> str:
    """SCOPE_MISSING, or "" for whoever got past the keys."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        reason = reason_of(error)
        assert reason
        return reason if reason == "SCOPE_MISSING" else ""
    return ""
