"""Holds as documents, in both directions."""

from collections.abc import Mapping
from typing import Any

from server.ledger.dates import date, milliseconds
from server.ledger.model import Charge, Hold, PinnedPrices, Priced, Profile, Tokens
from server.ledger.posting import HoldChange

Document = dict[str, Any]


def hold_document(hold: Hold) -> Document:
    """A hold, as embedded in its wallet and in its row."""
    document: Document = {
        "id": hold.id,
        "client_id": hold.client_id,
        "bound": _priced_document(hold.bound),
        "prices": _prices_document(hold.prices),
        "expires_time": date(hold.expires_ms),
        "priced_time": date(hold.priced_ms),
        "created_time": date(hold.created_ms),
        "policy": hold.policy,
        "feature_endpoint": hold.feature_endpoint,
        "ai_model": hold.ai_model,
    }
    if hold.labels:
        document["labels"] = hold.labels
    if hold.reported is not None:
        document["reported"] = _priced_document(hold.reported)
    return document


def hold_from(row: Mapping[str, Any]) -> Hold:
    """The inverse of `hold_document`."""
    reported = row.get("reported")
    return Hold(
        row["id"],
        row["client_id"],
        _priced_from(row["bound"]),
        _prices_from(row["prices"]),
        milliseconds(row["expires_time"]),
        milliseconds(row["priced_time"]),
        milliseconds(row["created_time"]),
        row["policy"],
        row["feature_endpoint"],
        row["ai_model"],
        row.get("labels"),
        None if reported is None else _priced_from(reported),
    )


def hold_change_document(change: HoldChange) -> Document:
    """What became of a hold."""
    document: Document = {
        "hold": hold_document(change.hold),
        "state": change.state,
        "captured_micros": change.captured_micros,
    }
    if change.ended_by is not None:
        document["ended_time"] = date(change.ended_ms)
        document["ended_by"] = change.ended_by
    return document


def hold_change_from(row: Mapping[str, Any]) -> HoldChange:
    """The inverse of `hold_change_document`."""
    ended = row.get("ended_time")
    return HoldChange(
        hold_from(row["hold"]),
        row["state"],
        row["captured_micros"],
        0 if ended is None else milliseconds(ended),
        row.get("ended_by"),
    )


def hold_row_update(profile: Profile, change: HoldChange) -> Document:
    """The update that leaves a hold's row as the hold is. The wallet's version guards it."""
    return {
        "q": {"_id": change.hold.id},
        "u": {
            "user_id": profile.user_id,
            "user_wallet_id": profile.id,
            "created_time": date(change.hold.created_ms),
            **hold_change_document(change),
        },
        "upsert": True,
    }


def _prices_document(prices: PinnedPrices) -> Document:
    document: Document = prices._asdict()
    document["rates"] = [list(rates) for rates in prices.rates]
    return document


def _prices_from(row: Mapping[str, Any]) -> PinnedPrices:
    rates = tuple((rate[0], rate[1], rate[2], rate[3]) for rate in row["rates"])
    model, setting, profit, endpoint = row["versions"]
    return PinnedPrices(
        tuple(row["bounds"]),
        rates,
        row["credit_price_micros"],
        row["profit_ppm"],
        row["endpoint_credits_micros"],
        (model, setting, profit, endpoint),
    )


def _priced_document(priced: Priced) -> Document:
    return {"tokens": list(priced.tokens), "charge": list(priced.charge)}


def _priced_from(row: Mapping[str, Any]) -> Priced:
    return Priced(Tokens(*row["tokens"]), Charge(*row["charge"]))
