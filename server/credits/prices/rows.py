"""What seeding and importing write: current rows, and a history row for each version."""

from typing import Any, Final, NamedTuple

from bson import ObjectId

from server.credits.prices.documents import prices_document
from server.credits.prices.model import EPOCH_MS, ModelVersion
from server.credits.prices.seed import Seed, SeedModel
from server.credits.resources import ACTIVE, AI_MODEL, BILLING_SETTING, CREDITS_PROFIT, CURRENCY
from server.kernel.ids import derived_id, new_id
from server.resources.fields import date
from server.resources.model import Document
from server.resources.schedule import fold, schedule
from server.resources.table import Table

BILLING_SETTING_ID: Final = derived_id("billing_setting", "initial")
CREDITS_PROFIT_ID: Final = derived_id("credits_profit", "initial")

MODELS: Final = Table(AI_MODEL, ())
SETTINGS: Final = Table(BILLING_SETTING, ())
PROFITS: Final = Table(CREDITS_PROFIT, ())

Rows = tuple[Document, list[Document]]
"""A current row and its history rows."""


class Author(NamedTuple):
    """Who changes something, when, and why; `revision` is the change's place among all."""

    client_id: str
    reason: str
    now_ms: int
    revision: int


def model_id(value: str) -> ObjectId:
    """The id of a listed model: derived, so that two seedings at once collide on it."""
    return derived_id("ai_model", value)


def model_rows(model: SeedModel, author: Author) -> Rows:
    """A model that was not there, with all its versions."""
    row = _current(
        MODELS,
        model_id(model.value),
        author,
        name=model.name,
        value=model.value,
        provider=model.provider,
        kind=int(model.kind),
        currency=CURRENCY,
        description="",
        is_initial=False,
    )
    histories = []
    for version in model.versions:
        row = with_version(row, version, author.now_ms)
        histories.append(_version_row(row, version, author))
    return row, histories


def changed_rows(row: Document, versions: tuple[ModelVersion, ...], author: Author) -> Rows:
    """A model that is there, with these versions beside those that it has."""
    now = date(author.now_ms)
    row = {**fold(row, now), "version": row["version"] + 1, "updated_time": now}
    histories = []
    for version in versions:
        row = with_version(row, version, author.now_ms)
        histories.append(_version_row(row, version, author))
    return row, histories


def with_version(row: Document, version: ModelVersion, now_ms: int) -> Document:
    """The row with these prices, now or when their time comes."""
    prices = None if version.prices is None else prices_document(version.prices)
    if version.effective_time_ms > now_ms:
        return schedule(row, date(version.effective_time_ms), {"prices": prices})
    changed = {**row, "prices": prices}
    if prices is None:
        del changed["prices"]
    return changed


def setting_rows(seed: Seed, author: Author) -> Rows:
    """The first credit price, in force since the epoch."""
    row = _current(
        SETTINGS,
        BILLING_SETTING_ID,
        author,
        credit_price_micros=seed.credit_price_micros,
        currency=CURRENCY,
        status=ACTIVE,
        applied_time=date(EPOCH_MS),
        is_initial=True,
        description="",
    )
    return row, [history_row(SETTINGS, row, EPOCH_MS, author)]


def profit_rows(seed: Seed, start_ms: int, author: Author) -> Rows:
    """A margin for all."""
    row = _current(
        PROFITS,
        CREDITS_PROFIT_ID,
        author,
        name="Default",
        profit_ppm=seed.profit_ppm,
        description="",
    )
    return row, [history_row(PROFITS, row, start_ms, author)]


def history_row(table: Table, row: Document, start_ms: int, author: Author) -> Document:
    """The row as the change leaves it."""
    history = table.resource.history
    if history is None:
        raise ValueError(f"{table.name} has no history")
    return {
        **table.version(row),
        "_id": new_id(),
        history.field: row["_id"],
        "effective_time": date(start_ms),
        "created_time": date(author.now_ms),
        "client_id": author.client_id,
        "reason": author.reason,
        "revision": author.revision,
    }


def _version_row(row: Document, version: ModelVersion, author: Author) -> Document:
    prices = None if version.prices is None else prices_document(version.prices)
    snapshot = {**row, "prices": prices}
    return history_row(MODELS, snapshot, version.effective_time_ms, author)


def _current(table: Table, row_id: ObjectId, author: Author, **fields: Any) -> Document:
    now = date(author.now_ms)
    row = {
        "_id": row_id,
        **fields,
        "is_active": True,
        "is_deleted": False,
        "created_time": now,
        "updated_time": now,
        "version": 1,
        "guard": 0,
    }
    return table.searched(row)
