"""The verbs of zaaz.credits.v1.CreditsService that change prices and that no declaration gives."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from bson import ObjectId
from zaaz.credits.v1 import ai_model_pb2, billing_setting_pb2

from server.credits.prices.differences import Comparison, Difference, begun_anew, compare
from server.credits.prices.documents import prices_document
from server.credits.prices.model import ModelPrices
from server.credits.prices.revisions import number
from server.credits.prices.rows import MODELS, Author, changed_rows, model_rows
from server.credits.prices.seed import Seed, SeedModel
from server.credits.prices.store import (
    ended_rows,
    history_collection,
    insert_rows,
    update_rows,
)
from server.credits.resources import ACTIVE, AI_MODEL, BILLING_SETTING, INACTIVE
from server.kernel.clock import iso
from server.kernel.errors import field_invalid
from server.kernel.ids import parse_id
from server.kernel.principal import current_principal
from server.kernel.timestamps import storable_time, timestamp
from server.resources.changes import Changes, not_found
from server.resources.codec import Codec
from server.resources.engine import Resources
from server.resources.fields import date, millis
from server.resources.model import Document

_PRICES = Codec(ai_model_pb2.TokenPrices)


class PricesServicer:
    """`published` loads the published price list, which takes up to a second."""

    def __init__(self, resources: Resources, published: Callable[[], Seed]) -> None:
        self._resources = resources
        self._published = published

    async def ActivateBillingSetting(
        self, request: billing_setting_pb2.ActivateBillingSettingRequest, context: Any
    ) -> billing_setting_pb2.ActivateBillingSettingResponse:
        """Make a setting the one active, and end the other, in one transaction."""
        answer = billing_setting_pb2.ActivateBillingSettingResponse
        codec = self._resources.table(BILLING_SETTING).codec

        async def work(changes: Changes) -> billing_setting_pb2.ActivateBillingSettingResponse:
            applied_ms = _not_past(request, "applied_time", changes)
            row = await _activate(changes, parse_id("id", request.id), applied_ms)
            return answer(billing_setting=codec.decode(row))

        return await self._resources.run(request, answer, work)

    async def ImportAiModels(
        self, request: ai_model_pb2.ImportAiModelsRequest, context: Any
    ) -> ai_model_pb2.ImportAiModelsResponse:
        """Make models like the published list, or tell what that would change."""
        seed = await asyncio.to_thread(self._published)

        async def work(changes: Changes) -> ai_model_pb2.ImportAiModelsResponse:
            at_ms = _not_past(request, "effective_time", changes)
            # Raw: what waits for its time is compared too.
            rows = await changes.tx.find(AI_MODEL.collection, {})
            models = await _begun_anew(changes, seed.models, rows, at_ms)
            providers = frozenset(request.providers)
            found = await asyncio.to_thread(compare, models, rows, providers, at_ms)
            if not request.dry_run:
                await _apply(changes, found, seed)
            return _import_answer(found, seed.source, applied=not request.dry_run)

        return await self._resources.run(request, ai_model_pb2.ImportAiModelsResponse, work)


async def _activate(changes: Changes, setting_id: ObjectId, applied_ms: int) -> Document:
    (setting,) = await changes.get(BILLING_SETTING, [setting_id])
    if setting["is_deleted"]:
        raise not_found(BILLING_SETTING, setting_id)
    if not setting["is_active"]:
        raise field_invalid("id", "is a billing setting that is not active")
    if setting["status"] == ACTIVE:
        begins_ms = millis(setting["applied_time"])
        if begins_ms <= applied_ms and begins_ms <= millis(changes.now):
            return setting
        if begins_ms < applied_ms:
            text = f"begins at {iso(begins_ms)} already: activate another to take that back"
            raise field_invalid("applied_time", text)
    # The index allows one active setting at a time, within the transaction too.
    for other in await changes.find(BILLING_SETTING, {"is_deleted": False, "status": ACTIVE}):
        if other["_id"] != setting_id:
            await changes.update(BILLING_SETTING, other, {**other, "status": INACTIVE})
    active = {**setting, "status": ACTIVE, "applied_time": date(applied_ms)}
    return await changes.update(BILLING_SETTING, setting, active)


async def _begun_anew(
    changes: Changes, listed: Sequence[SeedModel], rows: Sequence[Document], at_ms: int
) -> Sequence[SeedModel]:
    """The models listed; those that were here and have been purged begin now."""
    here = {row["value"] for row in rows}
    missing = [model.value for model in listed if model.value not in here]
    if not missing:
        return listed
    ended = await changes.tx.find(history_collection(MODELS), ended_rows(missing))
    return tuple(begun_anew(listed, {row["value"] for row in ended}, at_ms))


async def _apply(changes: Changes, found: Comparison, seed: Seed) -> None:
    if not found.differences:
        return
    now_ms, client_id = millis(changes.now), current_principal().client_id
    author = Author(client_id, seed.why, now_ms, await number(changes))
    added = [model_rows(model, author) for model in found.added]
    changed = [changed_rows(one.row, one.versions, author) for one in found.changed]
    await insert_rows(changes.tx, MODELS, added)
    await update_rows(changes.tx, MODELS, changed)
    changes.changed.add(AI_MODEL.collection)


def _not_past(request: Any, field: str, changes: Changes) -> int:
    """The time asked for, now if none is; FIELD_INVALID for a past one."""
    if not request.HasField(field):
        return millis(changes.now)
    time_ms = storable_time(field, getattr(request, field))
    if time_ms < millis(changes.now):
        raise field_invalid(field, "must not be in the past")
    return time_ms


def _import_answer(
    found: Comparison, source: str, *, applied: bool
) -> ai_model_pb2.ImportAiModelsResponse:
    return ai_model_pb2.ImportAiModelsResponse(
        differences=map(_difference_message, found.differences),
        unchanged=found.unchanged,
        applied=applied,
        source=source,
    )


def _difference_message(difference: Difference) -> ai_model_pb2.AiModelDifference:
    model = difference.model
    return ai_model_pb2.AiModelDifference(
        value=model.value,
        name=model.name,
        provider=model.provider,
        prices_before=_prices_message(difference.before),
        prices_after=_prices_message(difference.after),
        effective_time=timestamp(difference.start_ms),
    )


def _prices_message(prices: ModelPrices | None) -> ai_model_pb2.TokenPrices | None:
    if prices is None:
        return None
    message: ai_model_pb2.TokenPrices = _PRICES.decode(prices_document(prices))
    return message
