"""Connecting, and collections and indexes as declared."""

import logging
from pathlib import Path
from urllib.parse import quote

import pytest

from server.mongo.client import connect
from server.mongo.database import Database
from server.mongo.errors import DatabaseUnavailable, IndexConflict
from server.mongo.schema import Collection, Index
from tests.mongo.lone import lone_mongod

BY_USER = Index((("user_id", 1), ("create_time", -1)))
LIVE = Index((("value", 1),), unique=True, partial={"is_deleted": False})
EXPIRING = Index((("expire_time", 1),), expire_after_seconds=60)
DECLARED = (Collection("things", (BY_USER, LIVE, EXPIRING)), Collection("plain"))


class TestPrepare:
    async def test_makes_collections_and_indexes(self, database: Database) -> None:
        await database.prepare(DECLARED)
        things = await database.collection("things").index_information()
        assert things["user_id_1_create_time_-1"]["key"] == [("user_id", 1), ("create_time", -1)]
        assert things["value_1"]["unique"] is True
        assert things["value_1"]["partialFilterExpression"] == {"is_deleted": False}
        assert things["expire_time_1"]["expireAfterSeconds"] == 60
        assert list(await database.collection("plain").index_information()) == ["_id_"]

    async def test_is_idempotent(self, database: Database) -> None:
        await database.prepare(DECLARED)
        await database.prepare(DECLARED)

    @pytest.mark.parametrize(
        "other",
        [
            Index(LIVE.keys, unique=True),
            Index(LIVE.keys, partial={"is_deleted": False}),
            Index(LIVE.keys, unique=True, partial={"is_deleted": True}),
            Index(LIVE.keys, unique=True, partial={"is_deleted": False}, expire_after_seconds=1),
        ],
    )
    async def test_refuses_other_options(self, database: Database, other: Index) -> None:
        await database.prepare([Collection("things", (LIVE,))])
        with pytest.raises(IndexConflict, match=r"db\.things\.dropIndex\('value_1'\)"):
            await database.prepare([Collection("things", (other,))])

    async def test_refuses_the_same_keys_by_another_name(self, database: Database) -> None:
        await database.collection("things").create_index("value", name="mine", unique=True)
        with pytest.raises(IndexConflict, match="mine"):
            await database.prepare([Collection("things", (Index((("value", 1),), unique=True),))])

    async def test_refuses_rows_that_break_a_unique_index(self, database: Database) -> None:
        row = {"value": 1, "is_deleted": False}
        await database.collection("things").insert_many([dict(row), dict(row)])
        with pytest.raises(IndexConflict, match="break a unique index"):
            await database.prepare([Collection("things", (LIVE,))])

    async def test_names_an_index_that_nobody_declares(
        self, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        await database.prepare(DECLARED)
        await database.collection("things").create_index("old", name="old_one")
        with caplog.at_level(logging.WARNING):
            await database.prepare(DECLARED)
        assert "old_one" in caplog.text


class TestConnect:
    async def test_nobody_there(self, tmp_path: Path) -> None:
        nobody = quote(str(tmp_path / "nobody.sock"), safe="")
        with pytest.raises(DatabaseUnavailable, match="nobody"):
            await connect(f"mongodb://{nobody}/?serverSelectionTimeoutMS=50")

    async def test_lone_server_has_no_transactions(self, tmp_path: Path) -> None:
        async with lone_mongod(tmp_path) as url:
            with pytest.raises(DatabaseUnavailable, match="replSet"):
                await connect(url)

    async def test_url_cannot_weaken_safety(self, mongo_url: str) -> None:
        client = await connect(f"{mongo_url}&w=1&journal=false&readPreference=secondary")
        try:
            assert client.write_concern.document == {"w": "majority", "j": True}
            assert client.read_concern.level == "majority"
            assert client.read_preference.mode == 0
        finally:
            await client.close()

    async def test_url_may_set_timeouts(self, mongo_url: str) -> None:
        client = await connect(f"{mongo_url}&serverSelectionTimeoutMS=1234&MAXPOOLSIZE=3")
        try:
            assert client.options.server_selection_timeout == 1.234
            assert client.options.pool_options.max_pool_size == 3
        finally:
            await client.close()
