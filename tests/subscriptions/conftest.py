"""A market for tests that do not mind each other's packages."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import MongoClient
from tests.serving import ManualClock, serving
from tests.subscriptions.market import Market

DATABASE = "test_subscriptions"


@pytest.fixture(scope="session")
async def market(mongo_url: str, mongo_client: MongoClient) -> AsyncIterator[Market]:
    """By a clock that tests move on and never back."""
    clock = ManualClock()
    async with serving(mongo_url, DATABASE, clock) as served:
        yield Market(served, clock)
    await mongo_client.drop_database(DATABASE)
