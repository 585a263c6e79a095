"""Seeding and reading prices on a real database, and the source that keeps a book fresh."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from bson import ObjectId
from pymongo import AsyncMongoClient

from server.credits.prices.model import (
    ModelPrices,
    ModelVersion,
    PriceBook,
    Prices,
    PriceTier,
    ProfitVersion,
    TokenPrices,
)
from server.credits.prices.revisions import COLLECTIONS as REVISION_COLLECTIONS
from server.credits.prices.revisions import bump
from server.credits.prices.seed import ModelKind, Seed, SeedModel, SeedReport
from server.credits.prices.seeding import seed
from server.credits.prices.source import PriceBookSource
from server.credits.prices.store import PriceStore
from server.credits.resources import RESOURCES
from server.kernel.errors import DomainError, Reason
from server.mongo.database import Database
from server.mongo.errors import DatabaseUnavailable, TransactionLost
from server.resources.table import collections

COLLECTIONS = (
    *REVISION_COLLECTIONS,
    *(made for resource in RESOURCES for made in collections(resource)),
)
NOW_MS = 1_772_366_400_123
WAIT_SECONDS = 20

BASE = ModelPrices(TokenPrices(1_000_000, 2_000_000))
TIERED = ModelPrices(
    TokenPrices(3_000_000, 4_000_000, 5, 2**40),
    (PriceTier(200_000, TokenPrices(6_000_000, 7_000_000, None, 8)),),
)
SMALL = Seed(
    why="test",
    models=(
        SeedModel("p/one", "One", "P", ModelKind.LLM, (ModelVersion(0, BASE),)),
        SeedModel(
            "p/two",
            "Two",
            "P",
            ModelKind.OTHER,
            (
                ModelVersion(0, TIERED),
                ModelVersion(NOW_MS, BASE),
                ModelVersion(NOW_MS + 1, None),
            ),
        ),
    ),
    credit_price_micros=2_500_000,
    profit_ppm=333_333,
)
NOTHING = SeedReport(0, 0, credit_price_added=False, profit_added=False)


@pytest.fixture
async def store(database: Database) -> PriceStore:
    await database.prepare(COLLECTIONS)
    return PriceStore(database)


async def dump(database: Database) -> dict[str, list[dict[str, Any]]]:
    return {
        collection.name: await database.collection(collection.name).find().sort("_id").to_list()
        for collection in COLLECTIONS
    }


async def add_version(database: Database, value: str, prices: ModelPrices, time_ms: int) -> None:
    row = await database.collection("ai_models").find_one({"value": value})
    assert row is not None
    await add_history(
        database,
        "ai_model_histories",
        ai_model_id=row["_id"],
        value=value,
        prices={"input_token_price_micros": prices.base.input, "output_token_price_micros": 0},
        effective_time=moment(time_ms),
    )


async def add_history(database: Database, collection: str, **fields: Any) -> ObjectId:
    """A row as the engine writes it, in a change of its own."""
    row_id = ObjectId()
    async with database.transaction() as tx:
        row = {**fields, "created_time": moment(NOW_MS), "revision": await bump(tx)}
        await tx.insert(collection, [{"_id": row_id, **row}])
    return row_id


async def load_book(store: PriceStore) -> PriceBook:
    """The book as a process that has just started reads it."""
    source = PriceBookSource(store)
    await source.refresh()
    return source.book


def nameless(book: PriceBook) -> Prices:
    """What is in force when, whichever rows say so."""
    prices = book.prices
    return Prices(
        models={
            value: tuple(v._replace(history_id=None) for v in versions)
            for value, versions in prices.models.items()
        },
        credit_prices=tuple(v._replace(history_id=None) for v in prices.credit_prices),
        profits=tuple(v._replace(history_id=None) for v in prices.profits),
        model_profits={
            value: tuple(v._replace(history_id=None) for v in versions)
            for value, versions in prices.model_profits.items()
        },
    )


def moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=time_ms)


class TestSeed:
    async def test_fills_an_empty_database_from_the_package(self, store: PriceStore) -> None:
        assert not await store.is_seeded()
        report = await seed(store, lambda: NOW_MS)
        assert report.models_added > 2_000
        assert report.versions_added > report.models_added
        assert report.credit_price_added
        assert report.profit_added
        assert await store.is_seeded()
        book = await load_book(store)
        # $0.15, $0.60 and $0.075 per million tokens, plus 20 %, at 1,000 credits a dollar.
        charge = book.charge("openai/gpt-4o-mini", NOW_MS, 1_000_000, 0, 1_000_000, 0)
        assert charge.credits_micros == 270_000_000
        assert (charge.credit_price_micros, charge.profit_ppm) == (1_000_000, 200_000)
        assert book.charge("openai/gpt-4o-mini", 0, 0, 1_000_000, 0, 0).cost_price_micros == 600_000

    async def test_again_changes_nothing(self, store: PriceStore, database: Database) -> None:
        await seed(store, lambda: NOW_MS)
        before = await dump(database)
        assert await seed(store, lambda: NOW_MS + 1) == NOTHING
        assert await dump(database) == before

    async def test_two_at_once_make_one_set(self, store: PriceStore, database: Database) -> None:
        reports = await asyncio.gather(
            *(store.apply(SMALL, NOW_MS + offset) for offset in range(4))
        )
        added = SeedReport(2, 4, credit_price_added=True, profit_added=True)
        assert sorted(reports, key=lambda report: report.models_added) == [NOTHING] * 3 + [added]
        rows = await dump(database)
        assert {name: len(found) for name, found in rows.items()} == {
            "ai_models": 2,
            "ai_model_histories": 4,
            "billing_settings": 1,
            "billing_setting_histories": 1,
            "credits_profits": 1,
            "credits_profit_histories": 1,
            "price_revisions": 1,
        }
        assert rows.pop("price_revisions") == [{"_id": "prices", "revision": 1}]
        assert len({row["created_time"] for found in rows.values() for row in found}) == 1

    async def test_the_package_from_two_at_once(
        self, store: PriceStore, database: Database
    ) -> None:
        first, second = await asyncio.gather(
            seed(store, lambda: NOW_MS), seed(store, lambda: NOW_MS)
        )
        assert NOTHING in (first, second)
        added = first if second == NOTHING else second
        assert len((await dump(database))["ai_model_histories"]) == added.versions_added

    async def test_leaves_what_is_there(self, store: PriceStore, database: Database) -> None:
        models = database.collection("ai_models")
        await models.insert_one({"value": "p/one", "name": "Mine", "is_deleted": False})
        # One that somebody deleted does not come back, and its value is free.
        await store.apply(Seed("test", SMALL.models[1:]), NOW_MS)
        await models.update_one({"value": "p/two"}, {"$set": {"is_deleted": True}})
        assert await store.apply(SMALL, NOW_MS) == NOTHING
        assert await models.count_documents({}) == 2

    async def test_adds_what_is_missing(self, store: PriceStore) -> None:
        await store.apply(Seed("test", SMALL.models[:1]), NOW_MS)
        report = await store.apply(SMALL, NOW_MS)
        assert report == SeedReport(1, 3, credit_price_added=False, profit_added=False)

    async def test_what_was_purged_begins_anew(self, store: PriceStore, database: Database) -> None:
        await store.apply(SMALL, NOW_MS)
        one = await database.collection("ai_models").find_one_and_delete({"value": "p/one"})
        margin = await database.collection("credits_profits").find_one_and_delete({})
        assert one is not None
        assert margin is not None
        gone = {"is_deleted": True, "effective_time": moment(NOW_MS)}
        await add_history(
            database, "ai_model_histories", ai_model_id=one["_id"], value="p/one", **gone
        )
        await add_history(
            database, "credits_profit_histories", credits_profit_id=margin["_id"], **gone
        )
        later = NOW_MS + 1_000
        report = await store.apply(SMALL, later)
        assert report == SeedReport(1, 1, credit_price_added=False, profit_added=True)
        prices = nameless(await load_book(store))
        assert prices.models["p/one"] == (
            ModelVersion(0, BASE),
            ModelVersion(NOW_MS, None),
            ModelVersion(later, BASE),
        )
        assert [version[:2] for version in prices.profits] == [
            (0, 333_333),
            (NOW_MS, None),
            (later, 333_333),
        ]

    async def test_current_row_has_the_prices_in_force(
        self, store: PriceStore, database: Database
    ) -> None:
        await store.apply(SMALL, NOW_MS)
        row = await database.collection("ai_models").find_one({"value": "p/two"})
        assert row is not None
        now = {"input_token_price_micros": 1_000_000, "output_token_price_micros": 2_000_000}
        assert row["prices"] == {**now, "tiers": []}
        assert (row["kind"], row["currency"], row["is_active"]) == (2, "USD", True)
        assert row["created_time"] == moment(NOW_MS)
        # What is to come waits on the row.
        assert row["scheduled"] == [
            {"effective_time": moment(NOW_MS + 1), "fields": {"prices": None}}
        ]


class TestLoadBook:
    async def test_is_the_book_that_was_written(self, store: PriceStore) -> None:
        await store.apply(SMALL, NOW_MS)
        assert nameless(await load_book(store)) == SMALL.prices()

    async def test_of_an_empty_database_prices_nothing(self, store: PriceStore) -> None:
        assert await load_book(store) == PriceBook(Prices({}, (), (), {}))

    async def test_orders_versions_by_effective_time(
        self, store: PriceStore, database: Database
    ) -> None:
        await store.apply(SMALL, NOW_MS)
        await add_version(database, "p/one", TIERED, 2_000)
        await add_version(database, "p/one", BASE, 1_000)
        book = await load_book(store)
        assert [version[0] for version in book.prices.models["p/one"]] == [0, 1_000, 2_000]

    async def test_versions_of_one_time_go_by_the_order_of_the_changes(
        self, store: PriceStore, database: Database
    ) -> None:
        # By another process, whose clock is behind and whose ids are lower.
        await store.apply(SMALL, NOW_MS)
        await add_version(database, "p/one", TIERED, 1_000)
        await add_version(database, "p/one", BASE, 1_000)
        row = await database.collection("ai_model_histories").find_one({"revision": 3})
        assert row is not None
        histories = database.collection("ai_model_histories")
        await histories.delete_one({"_id": row["_id"]})
        changed = {"_id": ObjectId("0" * 24), "created_time": moment(NOW_MS - 60_000)}
        await histories.insert_one({**row, **changed})
        version = (await load_book(store)).prices.models["p/one"][-1]
        assert (version.prices, version.history_id) == (
            ModelPrices(TokenPrices(BASE.base.input, 0)),
            ObjectId("0" * 24),
        )

    async def test_a_margin_can_be_a_models_own(
        self, store: PriceStore, database: Database
    ) -> None:
        await store.apply(SMALL, NOW_MS)
        row = await database.collection("ai_models").find_one({"value": "p/one"})
        assert row is not None
        history_id = await add_history(
            database,
            "credits_profit_histories",
            credits_profit_id=ObjectId(),
            profit_ppm=7,
            ai_model_id=row["_id"],
            is_active=True,
            effective_time=moment(5),
        )
        book = await load_book(store)
        assert book.prices.model_profits == {
            "p/one": (ProfitVersion(0, None), ProfitVersion(5, 7, history_id))
        }
        assert book.versions("p/one", 5).credits_profit_history_id == history_id
        assert book.charge("p/one", 5, 1, 0, 0, 0).profit_ppm == 7
        assert book.charge("p/two", 5, 1, 0, 0, 0).profit_ppm == 333_333


class TestSource:
    async def test_has_no_book_before_the_first_refresh(self, store: PriceStore) -> None:
        with pytest.raises(DomainError) as caught:
            _ = PriceBookSource(store).book
        assert caught.value.reason == Reason.DEPENDENCY_UNAVAILABLE

    async def test_keeps_the_book_until_something_changes(
        self, store: PriceStore, database: Database
    ) -> None:
        await store.apply(SMALL, NOW_MS)
        source = PriceBookSource(store)
        await source.refresh()
        first = source.book
        await source.refresh()
        assert source.book is first
        await add_version(database, "p/one", TIERED, 1_000)
        await source.refresh()
        assert len(source.book.prices.models["p/one"]) == 2
        # A book that was handed out stays what it was.
        assert len(first.prices.models["p/one"]) == 1

    async def test_reads_only_what_has_changed(self, store: PriceStore, database: Database) -> None:
        await store.apply(SMALL, NOW_MS)
        source = PriceBookSource(store)
        await source.refresh()
        # What was read before is not asked for again.
        await database.collection("credits_profit_histories").delete_many({})
        await add_version(database, "p/one", TIERED, 1_000)
        await source.refresh()
        prices = source.book.prices
        assert (len(prices.models["p/one"]), len(prices.profits)) == (2, 1)

    async def test_misses_nothing_that_is_written_while_it_reads(
        self, store: PriceStore, database: Database
    ) -> None:
        await store.apply(SMALL, NOW_MS)
        source = PriceBookSource(store)

        async def write(first_ms: int) -> None:
            for time_ms in range(first_ms, first_ms + 5):
                await patiently(partial(add_version, database, "p/one", TIERED, time_ms))

        writing = asyncio.gather(*(write(1_000 * place) for place in range(1, 5)))
        while not writing.done():
            await source.refresh()
        await writing
        await source.refresh()
        assert len(source.book.prices.models["p/one"]) == 1 + 4 * 5
        assert source.book == await load_book(store)

    async def test_run_follows_changes(self, store: PriceStore, database: Database) -> None:
        await store.apply(SMALL, NOW_MS)
        source = PriceBookSource(store, refresh_seconds=0.01)
        await source.refresh()
        running = asyncio.create_task(source.run())
        try:
            await add_version(database, "p/one", TIERED, 1_000)
            await until(lambda: len(source.book.prices.models["p/one"]) == 2)
        finally:
            await end(running)

    async def test_run_outlives_a_row_that_makes_no_price(
        self, store: PriceStore, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        await store.apply(SMALL, NOW_MS)
        source = PriceBookSource(store, refresh_seconds=0.01)
        await source.refresh()
        first = source.book
        await add_version(database, "p/one", ModelPrices(TokenPrices(-1, 0)), 1_000)
        running = asyncio.create_task(source.run())
        try:
            await until(lambda: caplog.text.count("prices not refreshed") > 1)
            assert source.book is first
        finally:
            await end(running)

    async def test_run_outlives_the_database(
        self, store: PriceStore, database: Database, link: "Link", caplog: pytest.LogCaptureFixture
    ) -> None:
        # A server of an earlier test may have raised the root logger's level.
        caplog.set_level(logging.WARNING)
        await store.apply(SMALL, NOW_MS)
        source = PriceBookSource(PriceStore(link.database(database.name)), refresh_seconds=0.01)
        await source.refresh()
        first = source.book
        await link.cut()
        with pytest.raises(DatabaseUnavailable):
            await source.refresh()
        running = asyncio.create_task(source.run())
        try:
            await until(lambda: "prices not refreshed" in caplog.text)
            assert source.book is first
            await add_version(database, "p/one", TIERED, 1_000)
            await link.mend()
            await until(lambda: source.book is not first)
        finally:
            await end(running)


async def patiently(write: Callable[[], Awaitable[None]]) -> None:
    """One change loses to another; then it is made again."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            with suppress(TransactionLost):
                return await write()


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not done():  # noqa: ASYNC110 - a book that changes tells nobody
            await asyncio.sleep(0.005)


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class Link:
    """A way to the real mongod that can be cut and mended, with a client on it."""

    def __init__(self, mongod: str, path: Path) -> None:
        self._mongod = mongod
        self._path = path
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            f"mongodb://{quote(str(path), safe='')}",
            directConnection=True,
            tz_aware=True,
            serverSelectionTimeoutMS=200,
        )

    def database(self, name: str) -> Database:
        return Database(self.client, name)

    async def mend(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        self._path.unlink(missing_ok=True)
        for writer in list(self._writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._mongod)
        self._writers |= {writer, back}
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        self._writers -= {writer, back}

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while chunk := await reader.read(65_536):
                writer.write(chunk)
                await writer.drain()
        writer.close()


@pytest.fixture
async def link(mongo_url: str, tmp_path: Path) -> AsyncIterator[Link]:
    link = Link(unquote(urlsplit(mongo_url).netloc), tmp_path / "link.sock")
    await link.mend()
    yield link
    await link.client.close()
    await link.cut()
