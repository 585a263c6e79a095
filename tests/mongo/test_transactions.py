"""Transactions on a real mongod: all or nothing, and how a lost one is told."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from pymongo.errors import DocumentTooLarge, WriteError

from server.mongo.database import Database
from server.mongo.errors import TransactionLost
from server.mongo.transaction import MAX_ITEMS_PER_COMMAND, Tx

MEGABYTE = 1024 * 1024
BIG = "x" * (3 * MEGABYTE)
TRIES = 10


async def keys(database: Database) -> list[int]:
    cursor = database.collection("rows").find().sort("key")
    return [row["key"] async for row in cursor]


async def insert(database: Database, *documents: dict[str, Any]) -> None:
    async with database.transaction() as tx:
        await tx.insert("rows", documents)


async def insert_much(database: Database, *commands: Sequence[dict[str, Any]]) -> None:
    """In one transaction, which may be lost: this mongod's cache is small and not ours alone."""
    for _ in range(TRIES):
        with suppress(TransactionLost):
            async with database.transaction() as tx:
                for documents in commands:
                    await tx.insert("rows", documents)
            return
    raise AssertionError(f"lost {TRIES} times")


def row(key: int, **fields: Any) -> dict[str, Any]:
    return {"_id": key, "key": key, **fields}


class TestTransaction:
    async def test_is_seen_by_others_only_when_committed(self, rows: Database) -> None:
        async with rows.transaction() as tx:
            await tx.insert("rows", [row(1), row(2)])
            assert await keys(rows) == []
        assert await keys(rows) == [1, 2]

    async def test_aborts_on_exception(self, rows: Database) -> None:
        async def insert_and_fail() -> None:
            async with rows.transaction() as tx:
                await tx.insert("rows", [row(1)])
                raise LookupError

        with pytest.raises(LookupError):
            await insert_and_fail()
        assert await keys(rows) == []
        await insert(rows, row(1))

    async def test_aborts_on_cancellation_and_frees_its_locks(self, rows: Database) -> None:
        inserted = asyncio.Event()

        async def insert_and_wait() -> None:
            async with rows.transaction() as tx:
                await tx.insert("rows", [row(1)])
                inserted.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(insert_and_wait())
        await asyncio.wait_for(inserted.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await insert(rows, row(1))
        assert await keys(rows) == [1]

    async def test_refuses_use_after_its_block(self, rows: Database) -> None:
        async with rows.transaction() as tx:
            await tx.insert("rows", [row(1)])
        with pytest.raises(RuntimeError, match="over"):
            await tx.insert("rows", [row(2)])
        with pytest.raises(RuntimeError, match="over"):
            await tx.find("rows", {})
        assert await keys(rows) == [1]

    async def test_refuses_use_after_an_abort(self, rows: Database) -> None:
        opened: list[Tx] = []

        async def lose() -> None:
            async with rows.transaction() as tx:
                opened.append(tx)
                raise LookupError

        with pytest.raises(LookupError):
            await lose()
        with pytest.raises(RuntimeError, match="over"):
            await opened[0].delete("rows", [{}])

    async def test_empty_one_commits(self, rows: Database) -> None:
        async with rows.transaction() as tx:
            await tx.insert("rows", [])

    async def test_is_majority_and_journaled(self, rows: Database) -> None:
        await rows.collection("rows").insert_one(row(1))
        concern = rows.collection("rows").write_concern
        assert concern.document == {"w": "majority", "j": True}


class TestLost:
    async def test_duplicate_loses_the_whole(self, rows: Database) -> None:
        await insert(rows, row(1))
        with pytest.raises(TransactionLost) as lost:
            await insert(rows, row(2), {"_id": 3, "key": 1})
        assert lost.value.kind == "duplicate"
        assert await keys(rows) == [1]

    async def test_two_that_write_one_row_conflict(self, rows: Database) -> None:
        await insert(rows, row(1, count=0))
        increment = {"q": {"_id": 1}, "u": {"$inc": {"count": 1}}}
        async with rows.transaction() as first:
            await first.update("rows", [increment])
            with pytest.raises(TransactionLost) as lost:
                async with rows.transaction() as second:
                    await second.update("rows", [increment])
        assert lost.value.kind == "conflict"
        found = await rows.collection("rows").find_one({"_id": 1})
        assert found == row(1, count=1)

    async def test_key_committed_since_the_snapshot_conflicts(self, rows: Database) -> None:
        async def insert_after_another() -> None:
            async with rows.transaction() as tx:
                assert await tx.find("rows", {}) == []
                await insert(rows, row(1))
                await tx.insert("rows", [{"_id": 2, "key": 1}])

        with pytest.raises(TransactionLost) as lost:
            await insert_after_another()
        assert lost.value.kind == "conflict"
        assert await keys(rows) == [1]

    async def test_other_write_errors_are_defects(self, rows: Database) -> None:
        await insert(rows, row(1, text="a"))
        bad = {"q": {"_id": 1}, "u": {"$inc": {"text": 1}}}
        with pytest.raises(WriteError):
            async with rows.transaction() as tx:
                await tx.update("rows", [bad])


class TestTx:
    async def test_update_counts_matches_and_upserts(self, rows: Database) -> None:
        await insert(rows, row(1), row(2))
        async with rows.transaction() as tx:
            matched = await tx.update(
                "rows",
                [
                    {"q": {"_id": 1, "key": 1}, "u": {"$set": {"seen": True}}},
                    {"q": {"_id": 1, "key": 1}, "u": {"$set": {"seen": True}}},
                    {"q": {"_id": 2, "key": 7}, "u": {"$set": {"seen": True}}},
                    {"q": {"_id": 3}, "u": {"$set": {"key": 3}}, "upsert": True},
                ],
            )
        assert matched == 3
        assert await keys(rows) == [1, 2, 3]

    async def test_delete_counts(self, rows: Database) -> None:
        await insert(rows, row(1), row(2), row(3))
        async with rows.transaction() as tx:
            assert await tx.delete("rows", [{"key": {"$lt": 3}}, {"_id": 9}]) == 2
        assert await keys(rows) == [3]

    async def test_find_sees_own_writes_and_limits(self, rows: Database) -> None:
        async with rows.transaction() as tx:
            await tx.insert("rows", [row(1), row(2)])
            assert await tx.find("rows", {"key": 2}) == [row(2)]
            assert len(await tx.find("rows", {}, limit=1)) == 1

    async def test_batch_beyond_a_command_is_split_by_count(self, rows: Database) -> None:
        many = [row(key) for key in range(MAX_ITEMS_PER_COMMAND + 1)]
        await insert(rows, *many)
        assert await rows.collection("rows").count_documents({}) == len(many)

    async def test_batch_beyond_a_command_is_split_by_size(self, rows: Database) -> None:
        await insert_much(rows, [row(key, text=BIG) for key in range(6)])
        assert await keys(rows) == list(range(6))

    async def test_split_after_a_first_command_keeps_what_was_written(self, rows: Database) -> None:
        await insert_much(rows, [row(100)], [row(key, text=BIG) for key in range(6)])
        assert await keys(rows) == [*range(6), 100]

    async def test_document_beyond_mongodb_is_refused(self, rows: Database) -> None:
        with pytest.raises(DocumentTooLarge):
            await insert(rows, row(1), row(2, text="x" * (17 * MEGABYTE)))
        assert await keys(rows) == []
