"""What a user's package includes, and what those may use who have none."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from bson import ObjectId
from zaaz.catalog.v1 import feature_pb2

from server.catalog.source import REFRESH_SECONDS
from tests.catalog.calls import change_feature, new_endpoint, new_feature
from tests.catalog.package_calls import call, change, include
from tests.conftest import MongoClient
from tests.credits.priced import new_model
from tests.holds.asking import check, denied, reasons, set_wallet
from tests.holds.conftest import Holder
from tests.races.callers import persist
from tests.serving import ManualClock, new_key, serving
from tests.subscriptions.market import CREDITS, MONTH_MS, Market, Sold

CREDIT = 1_000_000
DATABASE = f"test_{new_key()[:16]}"
NOT_INCLUDED = "FEATURE_NOT_INCLUDED"


@pytest.fixture(scope="module")
async def shop(mongo_url: str, mongo_client: MongoClient) -> AsyncIterator[Market]:
    async with serving(mongo_url, DATABASE) as served:
        yield Market(served, ManualClock())
    await mongo_client.drop_database(DATABASE)


@pytest.fixture(scope="module")
async def elsewhere(shop: Market, mongo_url: str) -> AsyncIterator[Holder]:
    """Another server of the same."""
    async with serving(mongo_url, DATABASE) as other:
        yield Holder(other)


class Chat:
    """A tree of three features, "chat", "chat.send" and "chat.send.fast": an endpoint of each."""

    def __init__(self, features: list[Any], endpoints: list[Any]) -> None:
        self.features = features
        self.endpoints = endpoints
        self.top, self.middle, self.low = (feature.id for feature in features)

    async def allowed(self, holder: Holder, user_id: str) -> list[bool]:
        """Whether the user may use each endpoint, from the top down."""
        return [
            not await denied(holder, user_id, feature_endpoint=endpoint.value, ai_model="")
            for endpoint in self.endpoints
        ]


@pytest.fixture
async def chat(shop: Market) -> Chat:
    features: list[Any] = []
    endpoints: list[Any] = []
    for _ in range(3):
        above = features[-1].id if features else ""
        features.append(await new_feature(shop.served, parent_id=above))
        endpoints.append(await new_endpoint(shop.served, 70, feature_id=features[-1].id))
    return Chat(features, endpoints)


async def subscriber(shop: Market, sold: Sold) -> str:
    """A user with credits and the package."""
    user_id = await shop.served.new_wallet(CREDIT)
    await shop.assign(user_id, sold)
    return user_id


async def package_of(shop: Market, *features: str, **fields: Any) -> Sold:
    """A package that includes these features."""
    sold = await shop.package(**fields)
    for feature_id in features:
        await include(shop.served, sold.package_id, feature_id)
    return sold


async def package_of_another(shop: Market) -> Sold:
    """A package that includes a feature of its own."""
    return await package_of(shop, (await new_feature(shop.served)).id)


class TestWithPackage:
    async def test_a_feature_that_it_includes(self, shop: Market, chat: Chat) -> None:
        holder, other = Holder(shop.served), await new_endpoint(shop.served)
        sold = await package_of(shop, chat.top)
        user_id = await subscriber(shop, sold)
        assert (await check(holder, user_id, feature_endpoint=chat.endpoints[0].value)).allowed
        found = await denied(holder, user_id, feature_endpoint=other.value)
        assert list(found) == [NOT_INCLUDED]
        request = feature_pb2.GetFeatureRequest(id=other.feature_id)
        feature = (await shop.served.catalog.GetFeature(request)).feature.value
        assert found[NOT_INCLUDED].metadata == {
            "feature": feature,
            "package_id": sold.package_id,
        }
        assert feature in found[NOT_INCLUDED].message

    async def test_and_all_that_is_below_it(self, shop: Market, chat: Chat) -> None:
        holder = Holder(shop.served)
        expected = {
            chat.top: [True, True, True],
            chat.middle: [False, True, True],
            chat.low: [False, False, True],
        }
        for feature_id, allowed in expected.items():
            user_id = await subscriber(shop, await package_of(shop, feature_id))
            assert await chat.allowed(holder, user_id) == allowed
        nothing = await subscriber(shop, await package_of(shop))
        assert await chat.allowed(holder, nothing) == [False, False, False]

    async def test_what_was_sold_stays(self, shop: Market, chat: Chat) -> None:
        """What becomes of the package is for who buys it then."""
        holder = Holder(shop.served)
        sold = await shop.package()
        joined = await include(shop.served, sold.package_id, chat.top)
        before = await subscriber(shop, sold)
        await call(shop.served, "DeletePackageFeature", id=joined.id)
        other = await new_feature(shop.served)
        endpoint = await new_endpoint(shop.served, feature_id=other.id)
        await include(shop.served, sold.package_id, other.id)
        after = await subscriber(shop, sold)
        await change(shop.served, "Package", sold.package_id, is_active=False)
        for user_id, allowed in ((before, True), (after, False)):
            assert await chat.allowed(holder, user_id) == [allowed] * 3
            answer = await check(holder, user_id, feature_endpoint=endpoint.value)
            assert answer.allowed is not allowed

    async def test_one_that_was_switched_off_for_it(self, shop: Market, chat: Chat) -> None:
        await package_of(shop, chat.top)
        sold = await shop.package()
        await include(shop.served, sold.package_id, chat.top, is_active=False)
        user_id = await subscriber(shop, sold)
        assert await chat.allowed(Holder(shop.served), user_id) == [False] * 3

    async def test_the_tree_is_as_it_is_now(self, shop: Market, chat: Chat) -> None:
        holder, apart = Holder(shop.served), await new_feature(shop.served)
        user_id = await subscriber(shop, await package_of(shop, chat.top))
        await change_feature(shop.served, chat.middle, parent_id=apart.id)
        assert await chat.allowed(holder, user_id) == [True, False, False]
        await change_feature(shop.served, chat.middle, parent_id=chat.top)
        assert await chat.allowed(holder, user_id) == [True, True, True]

    async def test_a_use_of_a_model_alone(self, shop: Market) -> None:
        user_id = await subscriber(shop, await package_of(shop))
        assert not await denied(Holder(shop.served), user_id)

    async def test_a_snapshot_that_is_not_there(
        self, shop: Market, chat: Chat, mongo_client: MongoClient
    ) -> None:
        holder = Holder(shop.served)
        await package_of(shop, chat.top)
        user_id = await shop.served.new_wallet(CREDIT)
        row = {"package_id": ObjectId(), "package_history_id": ObjectId()}
        await set_wallet(mongo_client, user_id, DATABASE, **row)
        fields = {"feature_endpoint": chat.endpoints[0].value, "ai_model": "", "fresh": True}
        assert list(await denied(holder, user_id, **fields)) == [NOT_INCLUDED]
        histories = mongo_client[DATABASE]["package_histories"]
        await histories.insert_one(
            {"_id": row["package_history_id"], "features": [{"_id": ObjectId(chat.top)}]}
        )
        assert not await denied(holder, user_id, **fields)


class TestWithoutPackage:
    async def test_what_is_sold_is_not_free(self, shop: Market, chat: Chat) -> None:
        holder, user_id = Holder(shop.served), await shop.served.new_wallet(CREDIT)
        assert await chat.allowed(holder, user_id) == [True, True, True]
        joined = await include(shop.served, (await shop.package()).package_id, chat.middle)
        assert await chat.allowed(holder, user_id) == [True, False, False]
        found = await denied(holder, user_id, feature_endpoint=chat.endpoints[2].value)
        told = {"feature": chat.features[2].value, "package_id": ""}
        assert found[NOT_INCLUDED].metadata == told
        await change(shop.served, "PackageFeature", joined.id, is_active=False)
        assert await chat.allowed(holder, user_id) == [True, True, True]
        await change(shop.served, "PackageFeature", joined.id, is_active=True)
        assert await chat.allowed(holder, user_id) == [True, False, False]
        await call(shop.served, "DeletePackageFeature", id=joined.id)
        assert await chat.allowed(holder, user_id) == [True, True, True]

    async def test_a_package_that_is_not_sold_keeps_nothing(self, shop: Market, chat: Chat) -> None:
        holder, user_id = Holder(shop.served), await shop.served.new_wallet(CREDIT)
        sold = await package_of(shop, chat.top)
        assert await chat.allowed(holder, user_id) == [False, False, False]
        await change(shop.served, "Package", sold.package_id, is_active=False)
        assert await chat.allowed(holder, user_id) == [True, True, True]
        await package_of(shop, chat.low)
        assert await chat.allowed(holder, user_id) == [True, True, False]
        await change(shop.served, "Package", sold.package_id, is_active=True)
        assert await chat.allowed(holder, user_id) == [False, False, False]

    async def test_a_product_that_sells_credits_alone(self, shop: Market, chat: Chat) -> None:
        sold = await package_of(shop, kind=CREDITS)
        user_id = await shop.served.new_wallet(CREDIT)
        assert await chat.allowed(Holder(shop.served), user_id) == [True, True, True]
        # Whoever buys them may not do less than before.
        await shop.assign(user_id, sold)
        assert await chat.allowed(Holder(shop.served), user_id) == [True, True, True]
        await package_of(shop, chat.middle)
        assert await chat.allowed(Holder(shop.served), user_id) == [True, False, False]

    async def test_whose_credits_are_over(self, shop: Market, chat: Chat) -> None:
        """The time of the credits is the only reason, and may be passed by."""
        user_id = await subscriber(shop, await package_of(shop, kind=CREDITS))
        await shop.cancel(user_id, at_once=True)
        question = {"feature_endpoint": chat.endpoints[0].value, "ai_model": ""}
        assert list(await denied(Holder(shop.served), user_id, **question)) == ["WALLET_EXPIRED"]
        answer = await check(Holder(shop.served), user_id, **question, bypass_expiry=True)
        assert answer.allowed


class TestAllAtOnce:
    async def test_seven_reasons(
        self, shop: Market, elsewhere: Holder, mongo_client: MongoClient
    ) -> None:
        feature = await new_feature(shop.served, is_active=False, max_word={"free": 10})
        endpoint = await new_endpoint(shop.served, 70, feature_id=feature.id, is_active=False)
        model = await new_model(shop.served, is_active=False)
        await package_of(shop, feature.id)
        user_id = await shop.served.new_wallet()
        await shop.assign(user_id, await package_of(shop, usd_micros=0, credits_micros=0))
        past = datetime(2020, 1, 1, tzinfo=UTC)
        await set_wallet(mongo_client, user_id, DATABASE, expires_time=past)
        asked = {"feature_endpoint": endpoint.value, "ai_model": model.value, "words": 11}
        found = await denied(elsewhere, user_id, **asked)
        expected = [
            "AI_MODEL_INACTIVE",
            "FEATURE_ENDPOINT_INACTIVE",
            "FEATURE_INACTIVE",
            NOT_INCLUDED,
            "INSUFFICIENT_CREDITS",
            "WALLET_EXPIRED",
            "WORD_LIMIT_EXCEEDED",
        ]
        assert sorted(found) == expected
        expected.remove("WALLET_EXPIRED")
        assert sorted(await denied(elsewhere, user_id, bypass_expiry=True, **asked)) == expected


class TestFreshness:
    async def test_another_server_knows_soon(
        self, shop: Market, elsewhere: Holder, chat: Chat
    ) -> None:
        user_id = await shop.served.new_wallet(CREDIT)
        assert await chat.allowed(elsewhere, user_id) == [True, True, True]
        await package_of(shop, chat.top)
        assert REFRESH_SECONDS < 1
        await until(lambda: refuses(elsewhere, user_id, chat.endpoints[2].value))
        assert await chat.allowed(elsewhere, user_id) == [False, False, False]

    async def test_and_at_once_where_it_is_asked_to_look(
        self, shop: Market, elsewhere: Holder, chat: Chat
    ) -> None:
        user_id = await shop.served.new_wallet(10 * CREDIT)
        asked = {"feature_endpoint": chat.endpoints[2].value, "ai_model": "", "fresh": True}
        sold = await shop.package()
        for _ in range(5):
            assert not await denied(elsewhere, user_id, **asked)
            joined = await include(shop.served, sold.package_id, chat.top)
            answer = await elsewhere.authorize(user_id, **asked)
            assert reasons(answer.denials) == [NOT_INCLUDED]
            await call(shop.served, "DeletePackageFeature", id=joined.id)
            assert not await denied(elsewhere, user_id, **asked)
            joined = await include(shop.served, sold.package_id, chat.top)
            assert not (await check(elsewhere, user_id, **asked)).allowed
            await call(shop.served, "DeletePackageFeature", id=joined.id)

    async def test_who_has_bought_it_is_let_in_everywhere_at_once(
        self, shop: Market, elsewhere: Holder, chat: Chat
    ) -> None:
        """A refusal is not told before the wallet and the books have been looked at."""
        sold = await package_of(shop, chat.top)
        stranger = await shop.served.new_wallet(CREDIT)
        await until(lambda: refuses(elsewhere, stranger, chat.endpoints[2].value))
        for _ in range(3):
            user_id = await shop.served.new_wallet(CREDIT)
            assert await chat.allowed(elsewhere, user_id) == [False, False, False]
            await shop.assign(user_id, sold)
            assert await chat.allowed(elsewhere, user_id) == [True, True, True]

    async def test_a_wallet_as_it_is_stored(
        self, shop: Market, elsewhere: Holder, chat: Chat
    ) -> None:
        user_id = await subscriber(shop, await package_of(shop, chat.top))
        asked = {"feature_endpoint": chat.endpoints[2].value}
        assert (await check(elsewhere, user_id, **asked)).allowed
        await shop.assign(user_id, await package_of_another(shop))
        answer = await check(elsewhere, user_id, fresh=True, **asked)
        assert reasons(answer.denials) == [NOT_INCLUDED]


class TestRaces:
    async def test_a_package_that_changed_at_another_server(
        self, shop: Market, elsewhere: Holder, chat: Chat
    ) -> None:
        """The hold is refused by what its wallet has when it is written, not when it was read."""
        user_id = await subscriber(shop, await package_of(shop, chat.top))
        asked = {"feature_endpoint": chat.endpoints[2].value, "ai_model": ""}
        assert (await elsewhere.authorize(user_id, **asked)).allowed
        await shop.assign(user_id, await package_of_another(shop))
        answer = await elsewhere.authorize(user_id, **asked)
        assert reasons(answer.denials) == [NOT_INCLUDED]
        assert len((await shop.served.wallet(user_id)).holds) == 1
        await shop.served.assert_sound(user_id)

    async def test_packages_that_change_while_holds_are_placed(
        self, shop: Market, elsewhere: Holder, chat: Chat
    ) -> None:
        """Every hold lies where its wallet had the package that has the feature."""
        packages = [await package_of(shop, chat.top), await package_of_another(shop)]
        user_id = await subscriber(shop, packages[0])
        await shop.served.grant(user_id, 1_000 * CREDIT)
        history_ids = [await shop.history_id(sold) for sold in packages]

        async def turn() -> None:
            for place in range(1, 9):
                assigned = await persist(
                    partial(shop.assign, user_id, packages[place % 2], new_key())
                )
                assert not isinstance(assigned, str), assigned

        async def ask(holder: Holder) -> list[Any]:
            asked = {"feature_endpoint": chat.endpoints[2].value, "ai_model": ""}
            answers = []
            for _ in range(20):
                call = partial(holder.authorize, user_id, request_id=new_key(), **asked)
                answers.append(await persist(call))
            return answers

        here = Holder(shop.served)
        _, *answers = await asyncio.gather(turn(), ask(here), ask(elsewhere))
        holds = {answer.hold.id for part in answers for answer in part if answer.allowed}
        events = await shop.events(user_id)
        begun = {event.credits_transaction_id: event.package_history_id for event in events}
        standing = history_ids[0]
        for entry in await shop.served.transactions(user_id):
            standing = begun.get(entry.id, standing)
            if entry.id in holds:
                assert standing == history_ids[0]
                holds.remove(entry.id)
        assert not holds

    async def test_a_package_that_began_by_time_alone(
        self, mongo_url: str, mongo_client: MongoClient, manual_clock: ManualClock
    ) -> None:
        name = f"test_{new_key()[:16]}"
        async with serving(mongo_url, name, manual_clock) as served:
            shop, holder = Market(served, manual_clock), Holder(served)
            features = [await new_feature(served) for _ in range(2)]
            endpoints = [await new_endpoint(served, feature_id=one.id) for one in features]
            first, second = [await package_of(shop, one.id) for one in features]
            user_id = await subscriber(shop, first)
            await shop.schedule(user_id, second)
            asked = [{"feature_endpoint": one.value, "ai_model": ""} for one in endpoints]
            for allowed in ([True, False], [False, True]):
                found = [not await denied(holder, user_id, **one) for one in asked]
                assert found == allowed
                manual_clock.advance(MONTH_MS)
        await mongo_client.drop_database(name)


async def refuses(holder: Holder, user_id: str, endpoint: str) -> bool:
    return not (await check(holder, user_id, feature_endpoint=endpoint)).allowed


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
