"""Models, credit prices and margins as a test wants them, made through the contract."""

import asyncio
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from zaaz.credits.v1 import (
    ai_model_pb2,
    billing_setting_pb2,
    credits_profit_pb2,
    usage_service_pb2,
)

from tests.ledger.calls import reasons
from tests.serving import Served, new_key, usage_event

DOLLAR = 1_000_000
CREDIT = 1_000_000
WAIT_SECONDS = 20


def dollars(amount: int, **fields: Any) -> ai_model_pb2.TokenPrices:
    """So many dollars per million input tokens."""
    return ai_model_pb2.TokenPrices(input_token_price_micros=amount * DOLLAR, **fields)


async def new_model(
    served: Served, amount: int = 1, effective_ms: int | None = None, **fields: Any
) -> ai_model_pb2.AiModel:
    """A live model of a value of its own, at so many dollars per million input tokens."""
    values = {"name": "One", "value": f"p/{new_key()}", "provider": "p", "is_active": True}
    model = ai_model_pb2.AiModel(**{"prices": dollars(amount), **values, **fields})
    request = ai_model_pb2.CreateAiModelRequest(request_id=new_key(), ai_model=model)
    if effective_ms is not None:
        request.effective_time.FromMilliseconds(effective_ms)
    answer: ai_model_pb2.CreateAiModelResponse = await served.credits.CreateAiModel(request)
    return answer.ai_model


async def change_model(
    served: Served, model_id: str, effective_ms: int | None = None, **fields: Any
) -> ai_model_pb2.AiModel:
    request = ai_model_pb2.UpdateAiModelRequest(
        ai_model=ai_model_pb2.AiModel(id=model_id, **fields),
        update_mask=FieldMask(paths=list(fields)),
        reason="a test",
    )
    if effective_ms is not None:
        request.effective_time.FromMilliseconds(effective_ms)
    answer: ai_model_pb2.UpdateAiModelResponse = await served.credits.UpdateAiModel(request)
    return answer.ai_model


async def delete_model(served: Served, model_id: str) -> ai_model_pb2.AiModel:
    request = ai_model_pb2.DeleteAiModelRequest(id=model_id)
    answer: ai_model_pb2.DeleteAiModelResponse = await served.credits.DeleteAiModel(request)
    return answer.ai_model


async def restore_model(served: Served, model_id: str) -> ai_model_pb2.AiModel:
    request = ai_model_pb2.RestoreAiModelRequest(id=model_id)
    answer: ai_model_pb2.RestoreAiModelResponse = await served.credits.RestoreAiModel(request)
    return answer.ai_model


async def get_model(served: Served, model_id: str) -> ai_model_pb2.AiModel:
    answer: ai_model_pb2.GetAiModelResponse = await served.credits.GetAiModel(
        ai_model_pb2.GetAiModelRequest(id=model_id)
    )
    return answer.ai_model


async def find_model(served: Served, value: str) -> ai_model_pb2.AiModel:
    """The live model of this value."""
    answer: ai_model_pb2.ListAiModelsResponse = await served.credits.ListAiModels(
        ai_model_pb2.ListAiModelsRequest(filter=f'value = "{value}"')
    )
    (model,) = answer.ai_models
    return model


async def model_histories(served: Served, model_id: str) -> list[ai_model_pb2.AiModelHistory]:
    """Oldest first."""
    answer = await served.credits.ListAiModelHistories(
        ai_model_pb2.ListAiModelHistoriesRequest(
            filter=f'ai_model_id = "{model_id}"', order_by="created_time asc"
        )
    )
    return list(answer.ai_model_histories)


async def new_setting(
    served: Served, credit_price_micros: int = DOLLAR, **fields: Any
) -> billing_setting_pb2.BillingSetting:
    setting = billing_setting_pb2.BillingSetting(
        credit_price_micros=credit_price_micros, **{"is_active": True, **fields}
    )
    answer: billing_setting_pb2.CreateBillingSettingResponse = (
        await served.credits.CreateBillingSetting(
            billing_setting_pb2.CreateBillingSettingRequest(
                request_id=new_key(), billing_setting=setting
            )
        )
    )
    return answer.billing_setting


async def activate(
    served: Served, setting_id: str, applied_ms: int | None = None, request_id: str = ""
) -> billing_setting_pb2.BillingSetting:
    request = billing_setting_pb2.ActivateBillingSettingRequest(
        request_id=request_id, id=setting_id, reason="a test"
    )
    if applied_ms is not None:
        request.applied_time.FromMilliseconds(applied_ms)
    answer: billing_setting_pb2.ActivateBillingSettingResponse = (
        await served.credits.ActivateBillingSetting(request)
    )
    return answer.billing_setting


async def settings(
    served: Served, filter_: str = "", *, show_deleted: bool = False
) -> list[billing_setting_pb2.BillingSetting]:
    answer = await served.credits.ListBillingSettings(
        billing_setting_pb2.ListBillingSettingsRequest(filter=filter_, show_deleted=show_deleted)
    )
    return list(answer.billing_settings)


async def active_setting(served: Served) -> billing_setting_pb2.BillingSetting:
    """The one that there is."""
    (active,) = await settings(served, "status = active")
    return active


async def setting_histories(served: Served) -> list[billing_setting_pb2.BillingSettingHistory]:
    """Of all settings, oldest first."""
    answer = await served.credits.ListBillingSettingHistories(
        billing_setting_pb2.ListBillingSettingHistoriesRequest(
            order_by="created_time asc", page_size=1_000
        )
    )
    return list(answer.billing_setting_histories)


async def new_profit(
    served: Served, profit_ppm: int, ai_model_id: str = "", **fields: Any
) -> credits_profit_pb2.CreditsProfit:
    values = {"name": new_key(), "is_active": True, **fields}
    answer: credits_profit_pb2.CreateCreditsProfitResponse = (
        await served.credits.CreateCreditsProfit(
            credits_profit_pb2.CreateCreditsProfitRequest(
                request_id=new_key(),
                credits_profit=credits_profit_pb2.CreditsProfit(
                    profit_ppm=profit_ppm, ai_model_id=ai_model_id, **values
                ),
            )
        )
    )
    return answer.credits_profit


async def change_profit(
    served: Served, profit_id: str, effective_ms: int | None = None, **fields: Any
) -> credits_profit_pb2.CreditsProfit:
    request = credits_profit_pb2.UpdateCreditsProfitRequest(
        credits_profit=credits_profit_pb2.CreditsProfit(id=profit_id, **fields),
        update_mask=FieldMask(paths=list(fields)),
    )
    if effective_ms is not None:
        request.effective_time.FromMilliseconds(effective_ms)
    answer: credits_profit_pb2.UpdateCreditsProfitResponse = (
        await served.credits.UpdateCreditsProfit(request)
    )
    return answer.credits_profit


async def delete_profit(served: Served, profit_id: str) -> None:
    await served.credits.DeleteCreditsProfit(
        credits_profit_pb2.DeleteCreditsProfitRequest(id=profit_id)
    )


async def billed(served: Served, ai_model: str, occurred_ms: int) -> int | str:
    """What 1,000 input tokens cost then, in micro-credits; the reason if they are refused.

    With a dollar per million, 1,000 credits a dollar and 20 %: 1.2 credits.
    """
    user_id = await served.new_wallet(CREDIT * 1_000_000)
    event = usage_event(
        user_id, ai_model=ai_model, input_tokens=1_000, output_tokens=0, occurred_ms=occurred_ms
    )
    (result,) = await served.record(event)
    return outcome(result)


async def until_billed(served: Served, ai_model: str, occurred_ms: int, wanted: int) -> None:
    """Returns when a process that did not make the change itself has noticed it."""
    async with asyncio.timeout(WAIT_SECONDS):
        while await billed(served, ai_model, occurred_ms) != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def outcome(result: usage_service_pb2.RecordUsageResult) -> int | str:
    """What one event came to."""
    (reason,) = reasons([result])
    return reason or int(result.receipt.credits_micros)
