"""Two processes on one database: this one's server and another one's."""

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from tests.conftest import MongoClient
from tests.ledger.calls import Ingest
from tests.run.command import Command
from tests.serving import SECRET, Served, connected, serving

DATABASE = "test_twins"


class Twins(NamedTuple):
    """A client of each server, with the same key."""

    here: Served
    there: Served


@pytest.fixture(scope="session")
async def twins(
    mongo_url: str, mongo_client: MongoClient, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Twins]:
    """Both serve for all tests of these: each makes users of its own."""
    place = tmp_path_factory.mktemp("twin")
    settings = {"mongo_url": mongo_url, "mongo_database": DATABASE, "secret": SECRET}
    twin = Command(place / "data", place / "stderr", **settings)
    async with serving(mongo_url, DATABASE) as here:
        try:
            ready = await twin.start()
            async with connected(ready["grpc"], here.api_key) as there:
                yield Twins(here, there)
        finally:
            await twin.clean_up()
    await mongo_client.drop_database(DATABASE)


@pytest.fixture(autouse=True)
async def _streams() -> AsyncIterator[None]:
    yield
    await Ingest.close_all()
