"""Prices as documents, in both directions.

Documents have the contract's field names (see `zaaz.credits.v1.AiModel` and its
like). Current rows are what a listing shows; history rows are what a charge goes
by, one per version, never changed.
"""

from collections.abc import Mapping
from typing import Any

from server.credits.prices.model import ModelPrices, PriceTier, TokenPrices
from server.credits.prices.timeline import ModelRow, ProfitRow, SettingRow
from server.credits.resources import ACTIVE
from server.resources.fields import millis
from server.resources.model import Document

_CACHE_READ, _CACHE_WRITE = "cache_read_token_price_micros", "cache_write_token_price_micros"


def prices_document(prices: ModelPrices) -> Document:
    """A model's prices: `TokenPrices` of the contract."""
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
        PriceTier(tier.get("above_input_tokens", 0), _read_tokens(tier))
        for tier in document.get("tiers", ())
    )
    return ModelPrices(_read_tokens(document), tuple(tiers))


def read_model(row: Mapping[str, Any]) -> ModelRow:
    """A history row of a model."""
    return ModelRow(
        row["_id"],
        row["ai_model_id"],
        row["value"],
        _start_ms(row),
        read_prices(row.get("prices")),
        bool(row.get("is_deleted")),
        bool(row.get("is_active")),
    )


def read_setting(row: Mapping[str, Any]) -> SettingRow:
    """A history row of a billing setting."""
    applied = row.get("applied_time")
    return SettingRow(
        row["_id"],
        row["billing_setting_id"],
        row["credit_price_micros"],
        _start_ms(row) if applied is None else millis(applied),
        row.get("status") == ACTIVE,
        bool(row.get("is_initial")),
    )


def read_profit(row: Mapping[str, Any]) -> ProfitRow:
    """A history row of a margin."""
    return ProfitRow(
        row["_id"],
        row["credits_profit_id"],
        row.get("ai_model_id"),
        _start_ms(row),
        row.get("profit_ppm"),
        bool(row.get("is_active")),
        bool(row.get("is_deleted")),
    )


def _start_ms(row: Mapping[str, Any]) -> int:
    return millis(row["effective_time"])


def _tokens_document(prices: TokenPrices) -> Document:
    document = {
        "input_token_price_micros": prices.input,
        "output_token_price_micros": prices.output,
    }
    if prices.cache_read is not None:
        document[_CACHE_READ] = prices.cache_read
    if prices.cache_write is not None:
        document[_CACHE_WRITE] = prices.cache_write
    return document


def _read_tokens(document: Mapping[str, Any]) -> TokenPrices:
    return TokenPrices(
        document.get("input_token_price_micros", 0),
        document.get("output_token_price_micros", 0),
        document.get(_CACHE_READ),
        document.get(_CACHE_WRITE),
    )
