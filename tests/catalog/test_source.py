"""How the book of endpoints is kept, with a database and without."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from bson import ObjectId
from pymongo import AsyncMongoClient

from server.catalog.marks import REVISIONS
from server.catalog.resources import FEATURE_ENDPOINTS
from server.catalog.source import EndpointBookSource
from server.catalog.store import CatalogStore
from server.mongo.database import Database
from server.mongo.errors import DatabaseUnavailable
from tests.conftest import MongoClient

NOBODY = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=20"


@pytest.fixture
async def nowhere() -> AsyncIterator[Database]:
    """A database that nothing listens for."""
    client: MongoClient = AsyncMongoClient(NOBODY)
    yield Database(client, "nowhere")
    await client.close()


async def add_endpoint(database: Database, value: str) -> None:
    row = {"_id": ObjectId(), "value": value, "feature_id": ObjectId(), "is_deleted": False}
    await database.collection(FEATURE_ENDPOINTS.collection).insert_one(row)


async def mark(database: Database) -> None:
    increment = {"$inc": {"count": 1}}
    await database.collection(REVISIONS).update_one({"_id": 3}, increment, upsert=True)


class TestRefresh:
    async def test_only_what_was_marked_is_read(self, database: Database) -> None:
        source = EndpointBookSource(CatalogStore(database))
        await source.refresh()
        await add_endpoint(database, "chat")
        await source.refresh()
        assert source.book.find("chat") is None
        await mark(database)
        await source.refresh()
        assert source.book.find("chat") is not None

    async def test_many_at_once_see_what_was_there_when_they_began(
        self, database: Database
    ) -> None:
        source = EndpointBookSource(CatalogStore(database))

        async def add(value: str) -> bool:
            await add_endpoint(database, value)
            await mark(database)
            await source.changed()
            return source.book.find(value) is not None

        assert all(await asyncio.gather(*(add(f"chat-{place}") for place in range(20))))


class TestWithoutDatabase:
    async def test_the_last_book_stays(
        self, nowhere: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        # A server of an earlier test may have raised the root logger's level.
        caplog.set_level(logging.WARNING)
        source = EndpointBookSource(CatalogStore(nowhere))
        book = source.book
        with pytest.raises(DatabaseUnavailable):
            await source.refresh()
        for _ in range(3):
            await source.changed()
        assert source.book is book
        assert caplog.text.count("endpoints not refreshed") == 1
