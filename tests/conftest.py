"""A real mongod for the whole run, and a fresh database on it for each test that asks."""

import signal
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from pymongo import AsyncMongoClient

from server.mongo.client import connect
from server.mongo.database import Database
from server.mongo.embedded import EmbeddedMongod
from tests.serving import ManualClock, Served, serving

# A shell has what it starts in the background ignore Ctrl-C, and so all that we start.
signal.signal(signal.SIGINT, signal.default_int_handler)

MongoClient = AsyncMongoClient[dict[str, Any]]
CLOCKED = "test_clocked"


@pytest.fixture(scope="session")
async def mongo_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    mongod = EmbeddedMongod(tmp_path_factory.mktemp("mongo"), cache_gigabytes=0.25)
    url = await mongod.start()
    yield url
    await mongod.stop()


@pytest.fixture(scope="session")
async def mongo_client(mongo_url: str) -> AsyncIterator[MongoClient]:
    client = await connect(mongo_url)
    yield client
    await client.close()


@pytest.fixture
async def database(mongo_client: MongoClient) -> AsyncIterator[Database]:
    name = f"test_{uuid4().hex[:16]}"
    yield Database(mongo_client, name)
    await mongo_client.drop_database(name)


@pytest.fixture(scope="session")
async def served(mongo_url: str) -> AsyncIterator[Served]:
    """One server for all tests that do not mind each other: each makes users of its own."""
    async with serving(mongo_url, "test_served") as server:
        yield server


@pytest.fixture
def manual_clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def clocked(
    mongo_url: str, mongo_client: MongoClient, manual_clock: ManualClock
) -> AsyncIterator[Served]:
    """A server of the test's own, by a clock that the test moves."""
    async with serving(mongo_url, CLOCKED, manual_clock) as server:
        yield server
    await empty(mongo_client, CLOCKED)


async def empty(client: MongoClient, database: str) -> None:
    """Leaves the indexes, two hundred, to the next test: they take mongod half a second."""
    for name in await client[database].list_collection_names():
        await client[database][name].delete_many({})
