"""Prices as documents, in both directions.

Per million tokens in micro-USD, an absent cache price being the input price:
    {input_micros, output_micros, cache_read_micros?, cache_write_micros?,
     tiers: [{above_input_tokens, input_micros, ...}]}
Current rows are what a listing shows; history rows are what a charge goes by,
one per version, never changed. A history row whose price or margin is null
ends what was in force.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from bson import ObjectId
from bson.datetime_ms import DatetimeMS

from server.credits.prices.model import (
    EPOCH_MS,
    CreditPriceVersion,
    ModelPrices,
    ModelVersion,
    Prices,
    PriceTier,
    ProfitVersion,
    TokenPrices,
)
from server.credits.prices.seed import Seed, SeedModel
from server.kernel.ids import derived_id

CURRENCY = "USD"

Document = dict[str, Any]


def model_id(value: str) -> ObjectId:
    """The id of a seeded model: derived, so that two seedings at once collide on it."""
    return derived_id("ai_model", value)


BILLING_SETTING_ID = derived_id("billing_setting", "initial")
CREDITS_PROFIT_ID = derived_id("credits_profit", "initial")


def prices_document(prices: ModelPrices) -> Document:
    """A model's prices."""
    tiers = [
        {"above_input_tokens": tier.above_input_tokens, **_tokens_document(tier.prices)}
        for tier in prices.tiers
    ]
    return {**_tokens_document(prices.base), "tiers": tiers}


def read_prices(document: Mapping[str, Any] | None) -> ModelPrices | None:
    """The inverse of `prices_document`; None for null."""
    if document is None:
        return None
    tiers = (
        PriceTier(tier["above_input_tokens"], _read_tokens(tier)) for tier in document["tiers"]
    )
    return ModelPrices(_read_tokens(document), tuple(tiers))


def model_document(model: SeedModel, now_ms: int) -> Document:
    """The current row of a seeded model, with the prices in force now."""
    begun = [version for version in model.versions if version.effective_time_ms <= now_ms]
    current = (begun or model.versions[:1])[-1].prices
    return {
        "_id": model_id(model.value),
        "name": model.name,
        "value": model.value,
        "provider": model.provider,
        "kind": model.kind.value,
        "prices": None if current is None else prices_document(current),
        "currency": CURRENCY,
        "is_initial": False,
        **_state(now_ms),
    }


def model_history_document(
    model: SeedModel, version: ModelVersion, now_ms: int, why: str
) -> Document:
    """The history row of one version of a seeded model."""
    return {
        "_id": derived_id("ai_model_history", model.value, str(version.effective_time_ms)),
        "ai_model": model_id(model.value),
        "value": model.value,
        "prices": None if version.prices is None else prices_document(version.prices),
        "effective_time": DatetimeMS(version.effective_time_ms),
        "created_time": DatetimeMS(now_ms),
        "why": why,
    }


def billing_setting_documents(seed: Seed, now_ms: int) -> tuple[Document, Document]:
    """The first credit price: its current row and its history row."""
    row = {
        "_id": BILLING_SETTING_ID,
        "credit_price_micros": seed.credit_price_micros,
        "currency": CURRENCY,
        "status": "active",
        "applied_time": DatetimeMS(EPOCH_MS),
        "is_initial": True,
        **_state(now_ms),
    }
    history = {
        "_id": derived_id("billing_setting_history", "initial"),
        "billing_setting": BILLING_SETTING_ID,
        "credit_price_micros": seed.credit_price_micros,
        **_since_epoch(now_ms, seed.why),
    }
    return row, history


def credits_profit_documents(seed: Seed, now_ms: int) -> tuple[Document, Document]:
    """The first global margin: its current row and its history row."""
    row = {
        "_id": CREDITS_PROFIT_ID,
        "name": "Default",
        "profit_ppm": seed.profit_ppm,
        "ai_model": None,
        "is_initial": True,
        **_state(now_ms),
    }
    history = {
        "_id": derived_id("credits_profit_history", "initial"),
        "credits_profit": CREDITS_PROFIT_ID,
        "profit_ppm": seed.profit_ppm,
        "ai_model": None,
        **_since_epoch(now_ms, seed.why),
    }
    return row, history


def read_versions(
    profits: Iterable[Document], credit_prices: Iterable[Document], models: Iterable[Document]
) -> Prices:
    """Everything that history rows say, each kind in the order in which it comes into force."""
    versions: defaultdict[str, list[ModelVersion]] = defaultdict(list)
    values: defaultdict[ObjectId, set[str]] = defaultdict(set)
    for row in models:
        versions[row["value"]].append(ModelVersion(_effective_ms(row), read_prices(row["prices"])))
        values[row["ai_model"]].add(row["value"])
    global_profits: list[ProfitVersion] = []
    model_profits: defaultdict[str, list[ProfitVersion]] = defaultdict(list)
    for row in profits:
        profit = ProfitVersion(_effective_ms(row), row["profit_ppm"])
        if row["ai_model"] is None:
            global_profits.append(profit)
        else:
            for value in values[row["ai_model"]]:
                model_profits[value].append(profit)
    return Prices(
        models={value: tuple(rows) for value, rows in versions.items()},
        credit_prices=tuple(
            CreditPriceVersion(_effective_ms(row), row["credit_price_micros"])
            for row in credit_prices
        ),
        profits=tuple(global_profits),
        model_profits={value: tuple(rows) for value, rows in model_profits.items()},
    )


def _effective_ms(row: Mapping[str, Any]) -> int:
    return int(DatetimeMS(row["effective_time"]))


def _tokens_document(prices: TokenPrices) -> Document:
    document = {"input_micros": prices.input, "output_micros": prices.output}
    if prices.cache_read is not None:
        document["cache_read_micros"] = prices.cache_read
    if prices.cache_write is not None:
        document["cache_write_micros"] = prices.cache_write
    return document


def _read_tokens(document: Mapping[str, Any]) -> TokenPrices:
    return TokenPrices(
        document["input_micros"],
        document["output_micros"],
        document.get("cache_read_micros"),
        document.get("cache_write_micros"),
    )


def _state(now_ms: int) -> Document:
    return {
        "is_active": True,
        "is_deleted": False,
        "created_time": DatetimeMS(now_ms),
        "updated_time": DatetimeMS(now_ms),
    }


def _since_epoch(now_ms: int, why: str) -> Document:
    return {
        "effective_time": DatetimeMS(EPOCH_MS),
        "created_time": DatetimeMS(now_ms),
        "why": why,
    }
