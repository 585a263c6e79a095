"""What packages were sold with, in memory: read once, together, and never too much of it."""

import asyncio
from collections.abc import Callable, Collection

import pytest
from bson import ObjectId

from server.catalog.inclusions import MAX_READ, MISSING_SECONDS, Included, Inclusions
from server.catalog.packages.resources import PACKAGE_HISTORIES
from server.catalog.store import CatalogStore
from server.mongo.database import Database
from server.mongo.errors import DatabaseUnavailable


class Counted:
    """The store's own reading, counted, and held up or failing where a test wants that."""

    def __init__(self, database: Database) -> None:
        self._store = CatalogStore(database)
        self.asked: list[set[ObjectId]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_away = False

    async def included(self, history_ids: Collection[ObjectId]) -> dict[ObjectId, Included]:
        self.asked.append(set(history_ids))
        await self.gate.wait()
        if self.is_away:
            raise DatabaseUnavailable("away")
        return await self._store.included(history_ids)


@pytest.fixture
def counted(database: Database) -> Counted:
    return Counted(database)


async def sell(database: Database, *features: ObjectId, key: ObjectId | None = None) -> ObjectId:
    history_id = key or ObjectId()
    row = {
        "_id": history_id,
        "package_id": ObjectId(),
        "features": [{"_id": feature, "value": str(feature)} for feature in features],
    }
    await database.collection(PACKAGE_HISTORIES.collection).insert_one(row)
    return history_id


class TestReading:
    async def test_once(self, database: Database, counted: Counted) -> None:
        inclusions, feature = Inclusions(counted), ObjectId()
        history_id = await sell(database, feature)
        assert inclusions.find(history_id) is None
        assert await inclusions.load(history_id) == {feature}
        assert await inclusions.load(history_id) == {feature}
        assert inclusions.find(history_id) is not None
        assert len(counted.asked) == 1

    async def test_a_snapshot_of_no_features(self, database: Database, counted: Counted) -> None:
        inclusions, history_id = Inclusions(counted), await sell(database)
        assert await inclusions.load(history_id) == frozenset()
        await inclusions.renew()
        assert inclusions.find(history_id) == frozenset()

    async def test_many_share_one_and_the_next(self, database: Database, counted: Counted) -> None:
        inclusions = Inclusions(counted)
        sold = {await sell(database, feature): feature for feature in (ObjectId(), ObjectId())}
        first, second = sold
        counted.gate.clear()
        asking = [asyncio.create_task(inclusions.load(first))]
        await until(lambda: len(counted.asked) == 1)
        asking += [asyncio.create_task(inclusions.load(one)) for one in [first, second] * 20]
        counted.gate.set()
        answers = await asyncio.gather(*asking)
        assert answers == [{sold[first]}] + [{sold[one]} for one in [first, second] * 20]
        assert counted.asked == [{first}, {second}]

    async def test_one_query_asks_for_so_many(self, database: Database, counted: Counted) -> None:
        inclusions = Inclusions(counted)
        ids = [await sell(database, ObjectId()) for _ in range(MAX_READ + 5)]
        answers = await asyncio.gather(*map(inclusions.load, ids))
        assert all(len(answer) == 1 for answer in answers)
        assert max(map(len, counted.asked)) == MAX_READ
        assert sum(map(len, counted.asked)) == len(ids)

    async def test_who_goes_away_leaves_the_others(
        self, database: Database, counted: Counted
    ) -> None:
        inclusions, feature = Inclusions(counted), ObjectId()
        history_id = await sell(database, feature)
        counted.gate.clear()
        leader = asyncio.create_task(inclusions.load(history_id))
        await until(lambda: len(counted.asked) == 1)
        other = asyncio.create_task(inclusions.load(history_id))
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        counted.gate.set()
        assert await other == {feature}

    async def test_without_the_database(self, database: Database, counted: Counted) -> None:
        inclusions, feature = Inclusions(counted), ObjectId()
        history_id = await sell(database, feature)
        counted.is_away = True
        with pytest.raises(DatabaseUnavailable):
            await inclusions.load(history_id)
        assert inclusions.find(history_id) is None
        counted.is_away = False
        assert await inclusions.load(history_id) == {feature}


class TestBound:
    async def test_what_was_asked_for_longest_ago_goes(
        self, database: Database, counted: Counted
    ) -> None:
        inclusions = Inclusions(counted, max_snapshots=2)
        one, two, three = [await sell(database, ObjectId()) for _ in range(3)]
        await inclusions.load(one)
        await inclusions.load(two)
        assert inclusions.find(one) is not None
        await inclusions.load(three)
        assert inclusions.find(two) is None
        assert inclusions.find(one) is not None
        assert inclusions.find(three) is not None

    async def test_more_at_once_than_are_kept_are_answered(
        self, database: Database, counted: Counted
    ) -> None:
        inclusions = Inclusions(counted, max_snapshots=1)
        sold = {await sell(database, feature): {feature} for feature in map(oid, range(10))}
        answers = await asyncio.gather(*map(inclusions.load, sold))
        assert list(answers) == list(sold.values())
        assert sum(inclusions.find(one) is not None for one in sold) == 1


class TestMissing:
    async def test_is_not_looked_for_each_time(self, counted: Counted) -> None:
        inclusions, history_id = Inclusions(counted), ObjectId()
        for _ in range(2):
            assert await inclusions.load(history_id) == frozenset()
        assert len(counted.asked) == 1

    async def test_is_looked_for_again_soon(self, database: Database, counted: Counted) -> None:
        inclusions, history_id, feature = Inclusions(counted), ObjectId(), ObjectId()
        assert await inclusions.load(history_id) == frozenset()
        await sell(database, feature, key=history_id)
        assert MISSING_SECONDS < 1
        await until(lambda: inclusions.find(history_id) is None)
        assert await inclusions.load(history_id) == {feature}

    async def test_is_looked_for_again_when_renewed(
        self, database: Database, counted: Counted
    ) -> None:
        inclusions, history_id, feature = Inclusions(counted), ObjectId(), ObjectId()
        counted.gate.clear()
        early = asyncio.create_task(inclusions.load(history_id))
        await until(lambda: len(counted.asked) == 1)
        renewing = asyncio.create_task(inclusions.renew())
        counted.gate.set()
        # The one who looked too early is not whom the renewed goes by.
        assert await early == frozenset()
        await sell(database, feature, key=history_id)
        await renewing
        assert await inclusions.load(history_id) == {feature}


def oid(number: int) -> ObjectId:
    return ObjectId(f"{number:024x}")


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
