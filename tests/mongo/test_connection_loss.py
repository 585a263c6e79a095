"""What callers see when mongod goes away in the middle, and that they can go on."""

import pytest

from server.mongo import transaction
from server.mongo.database import Database
from server.mongo.embedded import EmbeddedMongod
from server.mongo.errors import DatabaseUnavailable, TransactionLost, reachable
from tests.mongo.conftest import Fault
from tests.mongo.processes import kill


async def insert(database: Database, key: int) -> None:
    async with database.transaction() as tx:
        await tx.insert("rows", [{"_id": key, "key": key}])


async def count(database: Database) -> int:
    return await database.collection("rows").count_documents({})


def kill_mongod(mongod: EmbeddedMongod) -> None:
    assert mongod.pid is not None
    kill(mongod.pid)


class TestKilledMongod:
    async def test_between_two_writes(self, mongod: EmbeddedMongod, fragile: Database) -> None:
        async def insert_and_kill() -> None:
            async with fragile.transaction() as tx:
                await tx.insert("rows", [{"_id": 1, "key": 1}])
                kill_mongod(mongod)
                await tx.insert("rows", [{"_id": 2, "key": 2}])

        with pytest.raises(DatabaseUnavailable):
            await insert_and_kill()
        await insert(fragile, 3)
        assert await count(fragile) == 1

    async def test_before_the_commit(self, mongod: EmbeddedMongod, fragile: Database) -> None:
        async def insert_and_kill() -> None:
            async with fragile.transaction() as tx:
                await tx.insert("rows", [{"_id": 1, "key": 1}])
                kill_mongod(mongod)

        # The one that was started again knows that there is no such transaction.
        with pytest.raises(TransactionLost) as lost:
            await insert_and_kill()
        assert lost.value.kind == "conflict"
        assert await count(fragile) == 0

    async def test_what_was_committed_stays(
        self, mongod: EmbeddedMongod, fragile: Database
    ) -> None:
        await insert(fragile, 1)
        kill_mongod(mongod)
        assert await count(fragile) == 1


class TestCommit:
    async def test_lost_answer_is_asked_for_again(self, fragile: Database, fault: Fault) -> None:
        # The commit happens, and its answer says that nobody knows.
        doubt = {"code": 64, "errmsg": "waiting for replication timed out"}
        async with fault("commitTransaction", times=2, writeConcernError=doubt):
            await insert(fragile, 1)
        assert await count(fragile) == 1

    async def test_lost_connection_is_made_again(self, fragile: Database, fault: Fault) -> None:
        async with fault("commitTransaction", times=2, closeConnection=True):
            await insert(fragile, 1)
        assert await count(fragile) == 1

    async def test_is_unknown_when_no_try_is_answered(
        self, fragile: Database, fault: Fault, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(transaction, "COMMIT_TIMEOUT_SECONDS", 0.2)
        async with fault("commitTransaction", times=1_000_000, closeConnection=True):
            with pytest.raises(TransactionLost) as lost:
                await insert(fragile, 1)
        assert lost.value.kind == "unknown"


class TestUnavailable:
    async def test_write_that_loses_its_connection(self, fragile: Database, fault: Fault) -> None:
        async with fault("insert", times=1, closeConnection=True):
            with pytest.raises(DatabaseUnavailable):
                await insert(fragile, 1)
        assert await count(fragile) == 0

    async def test_server_that_is_not_primary(self, fragile: Database, fault: Fault) -> None:
        async with fault("insert", times=1, errorCode=10107):
            with pytest.raises(DatabaseUnavailable):
                await insert(fragile, 1)

    @pytest.mark.parametrize("code", [112, 251, 388])
    async def test_what_may_pass_later_is_a_conflict(
        self, fragile: Database, fault: Fault, code: int
    ) -> None:
        async with fault("insert", times=1, errorCode=code):
            with pytest.raises(TransactionLost) as lost:
                await insert(fragile, 1)
        assert lost.value.kind == "conflict"

    async def test_reads_outside_transactions(self, fragile: Database, fault: Fault) -> None:
        async with fault("find", times=2, closeConnection=True):
            with pytest.raises(DatabaseUnavailable), reachable():
                await fragile.collection("rows").find_one({})

    async def test_ping(self, fragile: Database, fault: Fault) -> None:
        async with fault("ping", times=1_000_000, closeConnection=True):
            with pytest.raises(DatabaseUnavailable):
                await fragile.ping()
        await fragile.ping()
