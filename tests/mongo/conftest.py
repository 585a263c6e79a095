"""A mongod of its own for tests that hurt it, with MongoDB's fault points on."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from server.mongo.client import connect
from server.mongo.database import Database
from server.mongo.embedded import EmbeddedMongod
from server.mongo.schema import Collection, Index

ROWS = Collection("rows", (Index((("key", 1),), unique=True),))

Fault = Callable[..., AbstractAsyncContextManager[None]]


@pytest.fixture(scope="package")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedMongod:
    return EmbeddedMongod(
        tmp_path_factory.mktemp("hurt"),
        cache_gigabytes=0.25,
        parameters={"enableTestCommands": "1", "transactionLifetimeLimitSeconds": "2"},
    )


@pytest.fixture(scope="package")
async def mongod_url(mongod: EmbeddedMongod) -> AsyncIterator[str]:
    yield await mongod.start()
    await mongod.stop()


@pytest.fixture
async def fragile(mongod_url: str) -> AsyncIterator[Database]:
    """A database with `rows` on the mongod that a test may kill."""
    async with await connect(mongod_url) as client:
        name = f"test_{uuid4().hex[:16]}"
        database = Database(client, name)
        await database.prepare([ROWS])
        yield database
        await client.drop_database(name)


@pytest.fixture
async def fault(mongod_url: str) -> AsyncIterator[Fault]:
    """`async with fault("commitTransaction", times=2, closeConnection=True)`."""
    async with await connect(mongod_url) as client:

        async def set_mode(mode: str | Mapping[str, int], **options: object) -> None:
            point = {"configureFailPoint": "failCommand", "mode": mode, **options}
            await client.admin.command(point)

        @asynccontextmanager
        async def failing(command: str, *, times: int, **how: Any) -> AsyncIterator[None]:
            await set_mode({"times": times}, data={"failCommands": [command], **how})
            try:
                yield
            finally:
                await set_mode("off")

        yield failing


@pytest.fixture
async def rows(database: Database) -> Database:
    """A database with `rows`, whose `key` is unique, on the mongod that nobody kills."""
    await database.prepare([ROWS])
    return database
