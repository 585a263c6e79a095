"""What the price rows are: models, billing settings, margins, each with its history."""

from itertools import pairwise
from typing import Final

from zaaz.credits.v1.ai_model_pb2 import AiModel, AiModelHistory
from zaaz.credits.v1.billing_setting_pb2 import (
    BILLING_SETTING_STATUS_ACTIVE,
    BILLING_SETTING_STATUS_INACTIVE,
    BillingSetting,
    BillingSettingHistory,
)
from zaaz.credits.v1.credits_profit_pb2 import CreditsProfit, CreditsProfitHistory

from server.credits.prices.revisions import BY_REVISION, number
from server.kernel.errors import DomainError, Reason, field_invalid
from server.resources.changes import Changes
from server.resources.model import Document, History, Reference, Resource, Unique

CURRENCY: Final = "USD"
ACTIVE: Final = int(BILLING_SETTING_STATUS_ACTIVE)
INACTIVE: Final = int(BILLING_SETTING_STATUS_INACTIVE)

_TIMES: Final = ("created_time", "updated_time")


def in_dollars(document: Document) -> Document:
    """Prices are in US dollars, whatever the caller says."""
    return {**document, "currency": CURRENCY}


def tiers_ascend(new: Document, _old: Document | None) -> None:
    """FIELD_INVALID for tiers that are not in the order of their bounds."""
    tiers = (new.get("prices") or {}).get("tiers", ())
    bounds = [tier["above_input_tokens"] for tier in tiers]
    if any(later <= earlier for earlier, later in pairwise(bounds)):
        raise field_invalid(
            "ai_model.prices.tiers", "must be in the order of their bounds, no two of one bound"
        )


def inactive_at_first(document: Document) -> Document:
    """A setting counts for nothing until it is activated."""
    return {**in_dollars(document), "status": document.get("status") or INACTIVE}


async def guard_model(changes: Changes, new: Document | None, old: Document | None) -> None:
    """A version of its prices. FIELD_INVALID when it would begin in a namesake's time."""
    await number(changes)
    if new is not None and old is None:
        await _refuse_beside_a_namesake(changes, AI_MODEL, {"value": new["value"]})


async def guard_setting(changes: Changes, new: Document | None, old: Document | None) -> None:
    """A version of the credit price. ACTIVE_REQUIRED when there would be no active setting."""
    await number(changes)
    was_active = old is not None and old["status"] == ACTIVE
    stays = new is not None and not new["is_deleted"] and new["is_active"]
    if old is not None and was_active and not stays:
        raise DomainError(
            Reason.ACTIVE_REQUIRED,
            "one billing setting has to be active: activate another first",
            {"id": old["_id"]},
        )


async def guard_profit(changes: Changes, new: Document | None, old: Document | None) -> None:
    """A version of the margin. FIELD_INVALID when it would begin in an earlier one's time."""
    await number(changes)
    if new is not None and old is None:
        same = {"ai_model_id": new.get("ai_model_id")}
        await _refuse_beside_a_namesake(changes, CREDITS_PROFIT, same)


async def _refuse_beside_a_namesake(changes: Changes, resource: Resource, same: Document) -> None:
    """What was billed by a row that is deleted stays as it was: the next begins after it."""
    if resource.history is None or changes.effective >= changes.now:
        return
    query = {**same, "is_deleted": True, "effective_time": {"$gt": changes.effective}}
    if await changes.tx.find(resource.history.collection, query, limit=1):
        raise field_invalid("effective_time", "is before the end of a row that was deleted")


AI_MODEL: Final = Resource(
    AiModel,
    "ai_models",
    unique=(Unique(("value",)), Unique(("is_initial",), {"is_initial": True})),
    filterable=("value", "provider", "kind", "is_active", "is_initial", *_TIMES),
    sortable=("value", "name", "provider", *_TIMES),
    searchable=("name", "value"),
    output_only=("currency",),
    immutable=("value",),
    normalize=in_dollars,
    check=tiers_ascend,
    guard=guard_model,
    history=History(
        AiModelHistory,
        "ai_model_histories",
        "ai_model_id",
        scheduled=("prices",),
        filterable=("value",),
        indexes=BY_REVISION,
    ),
)

BILLING_SETTING: Final = Resource(
    BillingSetting,
    "billing_settings",
    unique=(
        Unique(("status",), {"status": ACTIVE}),
        Unique(("is_initial",), {"is_initial": True}),
    ),
    filterable=("status", "is_active", "is_initial", "applied_time", *_TIMES),
    sortable=("applied_time", *_TIMES),
    output_only=("currency", "status", "applied_time", "is_initial"),
    immutable=("credit_price_micros",),
    normalize=inactive_at_first,
    guard=guard_setting,
    history=History(
        BillingSettingHistory,
        "billing_setting_histories",
        "billing_setting_id",
        filterable=("status",),
        indexes=BY_REVISION,
    ),
)

CREDITS_PROFIT: Final = Resource(
    CreditsProfit,
    "credits_profits",
    unique=(Unique(("name",)), Unique(("ai_model_id",))),
    references=(Reference("ai_model_id", "ai_models", expand="ai_model"),),
    filterable=("name", "ai_model_id", "is_active", *_TIMES),
    sortable=("name", *_TIMES),
    searchable=("name",),
    immutable=("ai_model_id",),
    guard=guard_profit,
    history=History(
        CreditsProfitHistory,
        "credits_profit_histories",
        "credits_profit_id",
        scheduled=("profit_ppm",),
        filterable=("ai_model_id",),
        indexes=BY_REVISION,
    ),
)

RESOURCES: Final = (AI_MODEL, BILLING_SETTING, CREDITS_PROFIT)
