"""A shop for tests that do not mind each other's coupons and users."""

from collections.abc import AsyncIterator

import pytest

from server.mongo.database import Database
from tests.conftest import MongoClient
from tests.offers.shop import Shop
from tests.serving import ManualClock, serving

DATABASE = "test_offers"


@pytest.fixture(scope="session")
async def one_shop(mongo_url: str, mongo_client: MongoClient) -> AsyncIterator[Shop]:
    clock = ManualClock()
    async with serving(mongo_url, DATABASE, clock) as served:
        yield Shop(served, Database(mongo_client, DATABASE), clock)
    await mongo_client.drop_database(DATABASE)


@pytest.fixture
async def shop(one_shop: Shop) -> AsyncIterator[Shop]:
    """A server that sells nothing yet, by a clock that the test moves."""
    yield one_shop
    await one_shop.database.collection("packages").delete_many({})
