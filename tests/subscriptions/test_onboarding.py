"""The initial package and its credits: once a user, for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from zaaz.catalog.v1 import package_pb2
from zaaz.ledger.v1 import grant_pb2

from tests.conftest import MongoClient
from tests.ledger.calls import at, refused
from tests.serving import ManualClock, new_key, new_user, serving
from tests.subscriptions.market import FIVE_CREDITS, FREE, MONTH_MS, PAID, Market, Sold

CALLERS = 25


@pytest.fixture
async def markets(
    mongo_url: str, mongo_client: MongoClient
) -> AsyncIterator[tuple[Market, Market, Sold]]:
    """Two servers on one database, and the package that users begin with."""
    name, clock = f"test_{new_key()[:16]}", ManualClock()
    async with AsyncExitStack() as stack:
        here, there = [
            Market(await stack.enter_async_context(serving(mongo_url, name, clock)), clock)
            for _ in range(2)
        ]
        initial = await here.package(usd_micros=0, is_initial=True)
        yield here, there, initial
    await mongo_client.drop_database(name)


Markets = tuple[Market, Market, Sold]


async def test_package_and_credits(markets: Markets) -> None:
    market, _, initial = markets
    user_id = new_user()
    answer = await market.onboard(user_id, email="New@Example.com")
    wallet, entry = answer.wallet, answer.transaction
    assert answer.given
    assert (wallet.email, wallet.type) == ("new@example.com", FREE)
    assert (wallet.package_id, wallet.plan_id) == (initial.package_id, initial.plan_id)
    assert wallet.expires_time == at(market.clock() + MONTH_MS)
    assert wallet.available_micros == FIVE_CREDITS
    assert wallet.initial_credits_given
    assert wallet.initial_package_given
    assert (entry.increase_source, entry.reason) == (grant_pb2.INCREASE_SOURCE_BONUS, "onboarding")
    assert await market.kinds(user_id) == ["STARTED"]


async def test_once_however_often_and_wherever_it_is_asked(markets: Markets) -> None:
    user_id = new_user()
    answers = await asyncio.gather(
        *(market.onboard(user_id) for market in markets[:2] for _ in range(CALLERS))
    )
    assert sum(answer.given for answer in answers) == 1
    assert {answer.wallet.credits_micros for answer in answers} == {FIVE_CREDITS}
    market = markets[0]
    assert len(await market.served.transactions(user_id)) == 1
    await market.served.assert_sound(user_id)


async def test_for_ever(markets: Markets) -> None:
    market, _, initial = markets
    user_id, request_id = new_user(), new_key()
    first = await market.onboard(user_id, request_id)
    market.clock.advance(3 * MONTH_MS)
    again = await market.onboard(user_id)
    assert not again.given
    assert not again.HasField("transaction")
    assert again.wallet.available_micros == 0
    # Also when there is nothing to give by now; a replay has its first answer all the same.
    off = package_pb2.Package(id=initial.package_id, is_active=False)
    update = package_pb2.UpdatePackageRequest(
        package=off, update_mask=FieldMask(paths=["is_active"])
    )
    await market.served.catalog.UpdatePackage(update)
    assert not (await market.onboard(user_id)).given
    replayed = await market.onboard(user_id, request_id)
    assert (replayed.given, replayed.transaction) == (True, first.transaction)
    with refused("INITIAL_PACKAGE_MISSING"):
        await market.onboard()


async def test_who_has_a_package_keeps_it(markets: Markets) -> None:
    market = markets[0]
    sold, user_id = await market.package(), await market.served.new_wallet()
    before = (await market.activate(user_id, sold)).wallet
    answer = await market.onboard(user_id)
    assert answer.given
    after = answer.wallet
    assert after.subscription == before.subscription
    assert (after.type, after.credits_micros) == (PAID, 2 * FIVE_CREDITS)
    assert after.initial_package_given
    assert not (await market.onboard(user_id)).given


@pytest.mark.parametrize("at_once", [False, True])
async def test_whose_package_is_over_begins_with_the_initial_one(
    markets: Markets, at_once: bool
) -> None:
    """What is given once for ever is not to be given to a wallet that cannot spend it."""
    market, _, initial = markets
    sold, user_id = await market.package(), await market.served.new_wallet()
    await market.activate(user_id, sold)
    if at_once:
        await market.cancel(user_id, at_once=True)
    else:
        market.clock.advance(MONTH_MS)
    wallet = (await market.onboard(user_id)).wallet
    assert wallet.subscription.package_id == initial.package_id
    assert wallet.expires_time == at(market.clock() + MONTH_MS)
    await market.served.consume(user_id, FIVE_CREDITS)
