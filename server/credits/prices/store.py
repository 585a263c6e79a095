"""Where prices are kept: what is read of them for a book, and what seeding writes."""

import asyncio
from typing import Final

from pymongo.read_concern import ReadConcern

from server.credits.prices.differences import begun_anew
from server.credits.prices.documents import read_model, read_profit, read_setting
from server.credits.prices.model import EPOCH_MS
from server.credits.prices.revisions import bump, read_revision, written_order
from server.credits.prices.rows import (
    MODELS,
    PROFITS,
    SETTINGS,
    Author,
    Rows,
    model_id,
    model_rows,
    profit_rows,
    setting_rows,
)
from server.credits.prices.seed import Seed, SeedModel, SeedReport
from server.credits.prices.timeline import Histories
from server.mongo.database import Database
from server.mongo.errors import TransactionLost, reachable
from server.mongo.transaction import Tx
from server.resources.model import Document
from server.resources.table import Table

SEED_TRIES: Final = 8
SEED_RETRY_SECONDS: Final = 0.1

SEEDED_BY: Final = "server"
"""Stands for the client in the histories of what was seeded."""

_ORDER: Final = ("_id", "effective_time", "created_time", "revision")
_PROFIT_FIELDS: Final = (
    *_ORDER,
    "credits_profit_id",
    "ai_model_id",
    "profit_ppm",
    "is_active",
    "is_deleted",
)
_SETTING_FIELDS: Final = (
    *_ORDER,
    "billing_setting_id",
    "credit_price_micros",
    "status",
    "applied_time",
    "is_initial",
)
_MODEL_FIELDS: Final = (*_ORDER, "ai_model_id", "value", "prices", "is_active", "is_deleted")


class PriceStore:
    """The price collections of a database.

    Every method raises DatabaseUnavailable when it cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def is_seeded(self) -> bool:
        """Whether there are models, a credit price and a margin: nothing is left to a first run."""
        for table in (MODELS, SETTINGS, PROFITS):
            if not await self._any(table):
                return False
        return True

    async def revision(self) -> int:
        """The number of the last change."""
        return await read_revision(self._database)

    async def add_histories(self, histories: Histories, after: int, upto: int) -> None:
        """Add the rows of the changes after one and up to another, by their numbers."""
        bounds = {"revision": {"$gt": after, "$lte": upto}}
        profits = await self._histories(PROFITS, _PROFIT_FIELDS, bounds)
        settings = await self._histories(SETTINGS, _SETTING_FIELDS, bounds)
        models = await self._histories(MODELS, _MODEL_FIELDS, bounds)
        # Some 50 ms for all of the published list: not on the event loop.
        await asyncio.to_thread(_add, histories, models, settings, profits)

    async def apply(self, seed: Seed, now_ms: int) -> SeedReport:
        """Add what of `seed` is missing, in one transaction; what is there stays as it is.

        A model is missing without a row of its id or its value, deleted ones
        included; the credit price and the margin without any row of theirs.
        Whoever seeds at the same time makes the same ids, so one of the two loses
        its transaction and looks again. TransactionLost after SEED_TRIES.
        """
        for attempt in range(1, SEED_TRIES):
            try:
                return await self._add_missing(seed, now_ms)
            except TransactionLost:
                # Running again is safe even if it was stored: then nothing is missing.
                await asyncio.sleep(SEED_RETRY_SECONDS * attempt)
        return await self._add_missing(seed, now_ms)

    async def _add_missing(self, seed: Seed, now_ms: int) -> SeedReport:
        missing = await self._missing_models(seed)
        ended = await self._ended([model.value for model in missing])
        models = list(begun_anew(missing, ended, now_ms))
        credit_price_added = not await self._any(SETTINGS)
        profit_added = not await self._any(PROFITS)
        # The first applies since ever; one after others that were purged, from now on.
        first = not await self._any_history(PROFITS)
        versions_added = 0
        if models or credit_price_added or profit_added:
            async with self._database.transaction() as tx:
                author = Author(SEEDED_BY, seed.why, now_ms, await bump(tx))
                if credit_price_added:
                    await insert_rows(tx, SETTINGS, [setting_rows(seed, author)])
                if profit_added:
                    await insert_rows(
                        tx, PROFITS, [profit_rows(seed, EPOCH_MS if first else now_ms, author)]
                    )
                rows = [model_rows(model, author) for model in models]
                versions_added = await insert_rows(tx, MODELS, rows)
        return SeedReport(len(models), versions_added, credit_price_added, profit_added)

    async def _missing_models(self, seed: Seed) -> list[SeedModel]:
        with reachable():
            collection = self._database.collection(MODELS.name)
            rows = await collection.find({}, {"value": 1, "is_deleted": 1}).to_list()
        ids = {row["_id"] for row in rows}
        values = {row["value"] for row in rows if not row["is_deleted"]}
        return [
            model
            for model in seed.models
            if model_id(model.value) not in ids and model.value not in values
        ]

    async def _ended(self, values: list[str]) -> set[str]:
        collection = self._database.collection(history_collection(MODELS))
        with reachable():
            return set(await collection.distinct("value", ended_rows(values)))

    async def _histories(
        self, table: Table, fields: tuple[str, ...], bounds: Document
    ) -> list[Document]:
        """History rows as they were written. What could be rolled back is not read."""
        collection = self._database.collection(history_collection(table))
        settled = collection.with_options(read_concern=ReadConcern("majority"))
        with reachable():
            rows = await settled.find(bounds, dict.fromkeys(fields, 1)).to_list()
        return sorted(rows, key=written_order)

    async def _any(self, table: Table) -> bool:
        return await self._holds_any(table.name)

    async def _any_history(self, table: Table) -> bool:
        return await self._holds_any(history_collection(table))

    async def _holds_any(self, name: str) -> bool:
        collection = self._database.collection(name)
        with reachable():
            return await collection.find_one({}, {"_id": 1}) is not None


def ended_rows(values: list[str]) -> Document:
    """The query for the history rows by which models of these values were deleted."""
    return {"value": {"$in": values}, "is_deleted": True}


async def insert_rows(tx: Tx, table: Table, rows: list[Rows]) -> int:
    """Insert new rows and their histories. How many histories there were."""
    histories = [history for _, written in rows for history in written]
    if rows:
        await tx.insert(table.name, [row for row, _ in rows])
        await tx.insert(history_collection(table), histories)
    return len(histories)


async def update_rows(tx: Tx, table: Table, rows: list[Rows]) -> None:
    """Replace rows, each of the version before, and insert their histories."""
    if not rows:
        return
    updates = [
        {"q": {"_id": row["_id"], "version": row["version"] - 1}, "u": row} for row, _ in rows
    ]
    if await tx.update(table.name, updates) != len(updates):
        raise TransactionLost("conflict", f"a row of {table.name} has changed")
    histories = [history for _, written in rows for history in written]
    await tx.insert(history_collection(table), histories)


def history_collection(table: Table) -> str:
    """Where the table's history rows are."""
    history = table.resource.history
    if history is None:
        raise ValueError(f"{table.name} has no history")
    return history.collection


def _add(
    histories: Histories,
    models: list[Document],
    settings: list[Document],
    profits: list[Document],
) -> None:
    histories.add(map(read_model, models), map(read_setting, settings), map(read_profit, profits))
