from collections.abc import AsyncIterator

import pytest

from server.catalog.document.kinds import KINDS
from server.catalog.packages.resources import PACKAGE_HISTORIES
from tests.conftest import MongoClient
from tests.serving import Served, new_key, serving

DATABASE = f"test_{new_key()[:16]}"
COLLECTIONS = (
    *(kind.collection for kind in KINDS),
    PACKAGE_HISTORIES.collection,
    "feature_endpoint_histories",
)


@pytest.fixture(scope="module")
async def shop_server(mongo_url: str, mongo_client: MongoClient) -> AsyncIterator[Served]:
    async with serving(mongo_url, DATABASE) as server:
        yield server
    await mongo_client.drop_database(DATABASE)


@pytest.fixture
async def empty(shop_server: Served, mongo_client: MongoClient) -> Served:
    """A server without a catalog, nor a deleted one."""
    for name in COLLECTIONS:
        await mongo_client[DATABASE][name].delete_many({})
    return shop_server
