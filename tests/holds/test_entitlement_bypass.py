"""An expired wallet that is let pass: by whom, to what, and under which request."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from zaaz.credits.v1 import credits_service_pb2

from tests.catalog.calls import delete_endpoint, new_endpoint
from tests.conftest import MongoClient
from tests.holds.asking import check, reasons, set_wallet
from tests.holds.conftest import HELD_MICROS, Holder, used
from tests.ledger.calls import refused
from tests.serving import MODEL, Served, connected, make_key, new_key

CREDIT = 1_000_000
PAST = datetime(2020, 1, 1, tzinfo=UTC)

NewExpired = Callable[[int], Awaitable[str]]


@pytest.fixture
def new_expired(served: Served, mongo_client: MongoClient) -> NewExpired:
    """Makes users whose subscription has expired, with so many micro-credits."""

    async def new(credits_micros: int) -> str:
        user_id = await served.new_wallet(credits_micros)
        await set_wallet(mongo_client, user_id, expires_time=PAST)
        return user_id

    return new


async def consume(served: Served, user_id: str, **fields: Any) -> Any:
    values = {"request_id": new_key(), "credits_micros": 10, **fields}
    request = credits_service_pb2.ConsumeCreditsRequest(user_id=user_id, **values)
    return await served.credits.ConsumeCredits(request)


class TestHolds:
    async def test_the_expiry_alone_is_passed_by(
        self, newcomer: Holder, new_expired: NewExpired
    ) -> None:
        user_id = await new_expired(HELD_MICROS - 1)
        answer = await newcomer.authorize(user_id)
        assert reasons(answer.denials) == ["INSUFFICIENT_CREDITS", "WALLET_EXPIRED"]
        answer = await newcomer.authorize(user_id, bypass_expiry=True)
        assert reasons(answer.denials) == ["INSUFFICIENT_CREDITS"]
        checked = await check(
            newcomer, user_id, ai_model=MODEL, max_output_tokens=9_999_999, bypass_expiry=True
        )
        assert reasons(checked.denials) == ["INSUFFICIENT_CREDITS"]
        assert checked.available_micros == HELD_MICROS - 1
        assert (await check(newcomer, user_id, ai_model=MODEL)).available_micros == 0
        assert (await check(newcomer, user_id, ai_model=MODEL, bypass_expiry=True)).allowed

    async def test_what_was_let_pass_is_captured(
        self, newcomer: Holder, new_expired: NewExpired
    ) -> None:
        user_id = await new_expired(2 * HELD_MICROS)
        hold = await newcomer.place(user_id, bypass_expiry=True)
        # Time and reports are free; more credits are what an expired wallet does not have.
        await newcomer.extend(hold.id, ttl_seconds=60, reported=used(1, 1))
        with refused("WALLET_EXPIRED"):
            await newcomer.extend(hold.id, max_output_tokens=600)
        answer = await newcomer.capture(hold.id, (1_000, 500))
        assert answer.transaction.credits_micros == HELD_MICROS
        await newcomer.served.assert_sound(user_id)

    async def test_it_belongs_to_the_request(
        self, newcomer: Holder, new_expired: NewExpired
    ) -> None:
        user_id = await new_expired(2 * HELD_MICROS)
        key = new_key()
        first = await newcomer.authorize(user_id, request_id=key, bypass_expiry=True)
        assert first.allowed
        again = await newcomer.authorize(user_id, request_id=key, bypass_expiry=True)
        assert again == first
        with refused("REQUEST_ID_REUSED"):
            await newcomer.authorize(user_id, request_id=key)


class TestConsumption:
    async def test_of_an_expired_wallet(self, newcomer: Holder, new_expired: NewExpired) -> None:
        served = newcomer.served
        user_id = await new_expired(CREDIT)
        with refused("WALLET_EXPIRED"):
            await consume(served, user_id)
        answer = await consume(served, user_id, bypass_expiry=True)
        assert answer.transaction.credits_micros == 10
        with refused("INSUFFICIENT_CREDITS"):
            await consume(served, user_id, credits_micros=CREDIT, bypass_expiry=True)
        await served.assert_sound(user_id)

    async def test_a_replay_says_it_again(self, newcomer: Holder, new_expired: NewExpired) -> None:
        served = newcomer.served
        user_id = await new_expired(CREDIT)
        endpoint = await new_endpoint(served)
        for fields in ({}, {"feature_endpoint": endpoint.value}):
            asked = {"request_id": new_key(), **fields}
            first = await consume(served, user_id, bypass_expiry=True, **asked)
            assert await consume(served, user_id, bypass_expiry=True, **asked) == first
            with refused("REQUEST_ID_REUSED"):
                await consume(served, user_id, **asked)
        await delete_endpoint(served, endpoint.id)
        assert await consume(served, user_id, bypass_expiry=True, **asked) == first
        with refused("REQUEST_ID_REUSED"):
            await consume(served, user_id, **asked)


class TestWhoMay:
    @pytest.mark.parametrize(
        ("scopes", "may"),
        [
            (["credits.write", "credits.read"], False),
            (["credits.write", "credits.read", "wallet.bypass"], True),
            (["admin"], True),
        ],
        ids=["without", "with", "admin"],
    )
    async def test_it_takes_a_scope(
        self,
        newcomer: Holder,
        new_expired: NewExpired,
        mongo_url: str,
        scopes: list[str],
        may: bool,
    ) -> None:
        user_id = await new_expired(10 * CREDIT)
        key = await make_key(mongo_url, "test_served", "partner", scopes)
        async with connected(newcomer.served.target, key) as served:
            holder = Holder(served)
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: holder.authorize(user_id, bypass_expiry=True),
                lambda: check(holder, user_id, ai_model=MODEL, bypass_expiry=True),
                lambda: consume(served, user_id, bypass_expiry=True),
            ]
            for call in calls:
                if may:
                    await call()
                    continue
                with refused("SCOPE_MISSING") as refusal:
                    await call()
                assert refusal.metadata == {"scopes": "wallet.bypass"}

    async def test_each_of_a_batch_is_asked(self, served: Served, mongo_url: str) -> None:
        user_id = await served.new_wallet(CREDIT)
        key = await make_key(mongo_url, "test_served", "partner", ["credits.write"])
        values: dict[str, Any] = {"user_id": user_id, "credits_micros": 10}
        requests = [
            credits_service_pb2.ConsumeCreditsRequest(
                request_id=new_key(), bypass_expiry=bypass, **values
            )
            for bypass in (True, False)
        ]
        async with connected(served.target, key) as partner:
            answer = await partner.credits.BatchConsumeCredits(
                credits_service_pb2.BatchConsumeCreditsRequest(requests=requests)
            )
        assert [result.HasField("response") for result in answer.results] == [False, True]
