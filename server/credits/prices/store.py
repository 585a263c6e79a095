"""Where prices are kept, and the only place that reads and writes them."""

import asyncio
from collections.abc import Iterable

from server.credits.prices.documents import (
    Document,
    billing_setting_documents,
    credits_profit_documents,
    model_document,
    model_history_document,
    model_id,
    read_versions,
)
from server.credits.prices.model import PriceBook
from server.credits.prices.seed import Seed, SeedModel, SeedReport
from server.mongo.database import Database
from server.mongo.errors import TransactionLost, reachable
from server.mongo.schema import Collection, Index

AI_MODELS = "ai_models"
AI_MODEL_HISTORIES = "ai_model_histories"
BILLING_SETTINGS = "billing_settings"
BILLING_SETTING_HISTORIES = "billing_setting_histories"
CREDITS_PROFITS = "credits_profits"
CREDITS_PROFIT_HISTORIES = "credits_profit_histories"

_LIVE = {"is_deleted": False}

COLLECTIONS = (
    Collection(AI_MODELS, (Index((("value", 1),), unique=True, partial=_LIVE),)),
    Collection(AI_MODEL_HISTORIES, (Index((("ai_model", 1), ("effective_time", -1))),)),
    Collection(BILLING_SETTINGS),
    Collection(
        BILLING_SETTING_HISTORIES, (Index((("billing_setting", 1), ("effective_time", -1))),)
    ),
    Collection(CREDITS_PROFITS, (Index((("name", 1),), unique=True, partial=_LIVE),)),
    Collection(CREDITS_PROFIT_HISTORIES, (Index((("credits_profit", 1), ("effective_time", -1))),)),
)

SEED_TRIES = 8
SEED_RETRY_SECONDS = 0.1

Revision = tuple[int, int, int]
"""How many history rows there are. They are only ever added, so another book has another one."""


class PriceStore:
    """The price collections of a database.

    Every method raises DatabaseUnavailable when it cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def is_seeded(self) -> bool:
        """Whether there are models, a credit price and a margin: nothing is left to a first run."""
        for name in (AI_MODELS, BILLING_SETTINGS, CREDITS_PROFITS):
            if not await self._any(name):
                return False
        return True

    async def revision(self) -> Revision:
        """Which book `load_book` would make, for much less than making it."""
        return (
            await self._count(CREDITS_PROFIT_HISTORIES),
            await self._count(BILLING_SETTING_HISTORIES),
            await self._count(AI_MODEL_HISTORIES),
        )

    async def load_book(self) -> PriceBook:
        """The book of all versions there are. ValueError for a row that makes no price."""
        # Margins before models: one that refers to a model finds it, whatever is added meanwhile.
        profits = await self._versions(CREDITS_PROFIT_HISTORIES, "ai_model", "profit_ppm")
        credit_prices = await self._versions(BILLING_SETTING_HISTORIES, "credit_price_micros")
        models = await self._versions(AI_MODEL_HISTORIES, "ai_model", "value", "prices")
        return PriceBook(read_versions(profits, credit_prices, models))

    async def apply(self, seed: Seed, now_ms: int) -> SeedReport:
        """Add what of `seed` is missing, in one transaction; what is there stays as it is.

        A model is missing without a row of its id and a live one of its value,
        the credit price and the margin without any row of theirs. Whoever seeds
        at the same time makes the same ids, so one of the two loses its
        transaction and looks again. TransactionLost after SEED_TRIES.
        """
        for attempt in range(1, SEED_TRIES):
            try:
                return await self._add_missing(seed, now_ms)
            except TransactionLost:
                # Running again is safe even if it was stored: then nothing is missing.
                await asyncio.sleep(SEED_RETRY_SECONDS * attempt)
        return await self._add_missing(seed, now_ms)

    async def _add_missing(self, seed: Seed, now_ms: int) -> SeedReport:
        models = await self._missing_models(seed)
        credit_price_added = not await self._any(BILLING_SETTINGS)
        profit_added = not await self._any(CREDITS_PROFITS)
        rows = _model_rows(models, now_ms, seed.why)
        if credit_price_added:
            row, history = billing_setting_documents(seed, now_ms)
            rows |= {BILLING_SETTINGS: [row], BILLING_SETTING_HISTORIES: [history]}
        if profit_added:
            row, history = credits_profit_documents(seed, now_ms)
            rows |= {CREDITS_PROFITS: [row], CREDITS_PROFIT_HISTORIES: [history]}
        if any(rows.values()):
            await self._insert(rows)
        versions_added = len(rows[AI_MODEL_HISTORIES])
        return SeedReport(len(models), versions_added, credit_price_added, profit_added)

    async def _missing_models(self, seed: Seed) -> list[SeedModel]:
        rows = await self._find(AI_MODELS, "value", "is_deleted")
        ids = {row["_id"] for row in rows}
        values = {row["value"] for row in rows if not row["is_deleted"]}
        return [
            model
            for model in seed.models
            if model_id(model.value) not in ids and model.value not in values
        ]

    async def _insert(self, rows: dict[str, list[Document]]) -> None:
        async with self._database.transaction() as tx:
            for name, documents in rows.items():
                if documents:
                    await tx.insert(name, documents)

    async def _versions(self, name: str, *fields: str) -> list[Document]:
        """History rows in the order in which they come into force; of equal ones, as written."""
        rows = await self._find(name, "effective_time", "created_time", *fields)
        return sorted(
            rows, key=lambda row: (row["effective_time"], row["created_time"], row["_id"])
        )

    async def _find(self, name: str, *fields: str) -> list[Document]:
        with reachable():
            return (
                await self._database.collection(name).find({}, dict.fromkeys(fields, 1)).to_list()
            )

    async def _any(self, name: str) -> bool:
        with reachable():
            return await self._database.collection(name).find_one({}, {"_id": 1}) is not None

    async def _count(self, name: str) -> int:
        with reachable():
            return await self._database.collection(name).count_documents({})


def _model_rows(models: Iterable[SeedModel], now_ms: int, why: str) -> dict[str, list[Document]]:
    rows: dict[str, list[Document]] = {AI_MODELS: [], AI_MODEL_HISTORIES: []}
    for model in models:
        rows[AI_MODELS].append(model_document(model, now_ms))
        rows[AI_MODEL_HISTORIES].extend(
            model_history_document(model, version, now_ms, why) for version in model.versions
        )
    return rows
