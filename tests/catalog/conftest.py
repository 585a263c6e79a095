from collections.abc import AsyncIterator

import pytest

from tests.catalog.documents import forget_catalog
from tests.conftest import MongoClient
from tests.serving import Served, new_key, serving

DATABASE = f"test_{new_key()[:16]}"


@pytest.fixture(scope="module")
async def shop_server(mongo_url: str, mongo_client: MongoClient) -> AsyncIterator[Served]:
    async with serving(mongo_url, DATABASE) as server:
        yield server
    await mongo_client.drop_database(DATABASE)


@pytest.fixture
async def empty(shop_server: Served, mongo_client: MongoClient) -> Served:
    """A server without a catalog, nor a deleted one."""
    await forget_catalog(mongo_client[DATABASE])
    return shop_server
