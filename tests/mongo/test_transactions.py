"""Transactions on a real mongod: all or nothing, and how a lost one is told."""

import pytest

from server.mongo.database import Database
from server.mongo.errors import TransactionLost
from server.mongo.schema import Collection, Index

ROWS = Collection("rows", (Index((("key", 1),), unique=True),))


@pytest.fixture
async def rows(database: Database) -> Database:
    await database.prepare([ROWS])
    return database


async def count(database: Database) -> int:
    return await database.collection("rows").count_documents({})


async def insert(database: Database, *documents: dict[str, object]) -> None:
    async with database.transaction() as tx:
        await tx.insert("rows", documents)


class TestTransaction:
    async def test_commits_at_the_end_of_the_block(self, rows: Database) -> None:
        async with rows.transaction() as tx:
            await tx.insert("rows", [{"_id": 1, "key": 1}, {"_id": 2, "key": 2}])
            assert await count(rows) == 0
        assert await count(rows) == 2

    async def test_aborts_on_exception(self, rows: Database) -> None:
        async def insert_and_fail() -> None:
            async with rows.transaction() as tx:
                await tx.insert("rows", [{"_id": 1, "key": 1}])
                raise LookupError

        with pytest.raises(LookupError):
            await insert_and_fail()
        assert await count(rows) == 0

    async def test_duplicate_loses_the_whole(self, rows: Database) -> None:
        await rows.collection("rows").insert_one({"_id": 1, "key": 1})
        with pytest.raises(TransactionLost) as lost:
            await insert(rows, {"_id": 2, "key": 2}, {"_id": 3, "key": 1})
        assert lost.value.kind == "duplicate"
        assert await count(rows) == 1
