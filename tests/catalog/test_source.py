"""How the book of endpoints is kept, with a database and without."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from bson import ObjectId
from pymongo import AsyncMongoClient

from server.catalog import store
from server.catalog.endpoints import EndpointBook
from server.catalog.marks import REVISIONS
from server.catalog.packages.resources import PACKAGE_FEATURES, PACKAGES
from server.catalog.resources import FEATURE_ENDPOINTS
from server.catalog.source import EndpointBookSource
from server.catalog.store import CatalogStore
from server.mongo.database import Database
from server.mongo.errors import DatabaseUnavailable
from server.resources.model import Resource
from tests.conftest import MongoClient

NOBODY = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=20"


@pytest.fixture
async def nowhere() -> AsyncIterator[Database]:
    """A database that nothing listens for."""
    client: MongoClient = AsyncMongoClient(NOBODY)
    yield Database(client, "nowhere")
    await client.close()


async def add(database: Database, resource: Resource, **fields: Any) -> None:
    await database.collection(resource.collection).insert_one(fields)


async def add_endpoint(database: Database, value: str, feature_id: ObjectId | None = None) -> None:
    fields = {"value": value, "feature_id": feature_id or ObjectId(), "is_deleted": False}
    await add(database, FEATURE_ENDPOINTS, **fields)


def is_packaged(book: EndpointBook, value: str) -> bool | None:
    """None: the endpoint is not in the book."""
    endpoint = book.find(value)
    return None if endpoint is None else endpoint.is_packaged


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


class TestPackaged:
    async def test_what_packages_have_that_are_sold(self, database: Database) -> None:
        live = {"is_deleted": False, "is_active": True}
        states = (live, live | {"is_active": False}, live | {"is_deleted": True})
        endpoints: list[str] = []
        for of_package in states:
            for of_join in states:
                feature_id, package_id = ObjectId(), ObjectId()
                await add(database, PACKAGES, _id=package_id, **of_package)
                ids = {"package_id": package_id, "feature_id": feature_id}
                await add(database, PACKAGE_FEATURES, **ids, **of_join)
                value = f"chat-{len(endpoints)}"
                endpoints.append(value)
                await add_endpoint(database, value, feature_id)
        book = await CatalogStore(database).load_book()
        assert [is_packaged(book, value) for value in endpoints] == [True] + [False] * 8

    async def test_so_many_are_read_and_no_more(
        self,
        database: Database,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.ERROR)
        package_id = ObjectId()
        await add(database, PACKAGES, _id=package_id, is_deleted=False, is_active=True)
        for place in range(3):
            ids = {"package_id": package_id, "feature_id": ObjectId()}
            await add(database, PACKAGE_FEATURES, **ids, is_deleted=False, is_active=True)
            await add_endpoint(database, f"chat-{place}", ids["feature_id"])
        monkeypatch.setattr(store, "MAX_ROWS", 2)
        book = await CatalogStore(database).load_book()
        found = [is_packaged(book, f"chat-{place}") for place in range(3)]
        assert found.count(True) <= 2
        assert found.count(None) == 1
        assert "only 2 features of packages are in the book" in caplog.text


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
