"""Credit prices through the contract: one is active, always, and each counts from its time."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from zaaz.credits.v1 import billing_setting_pb2 as pb

from server.mongo.database import Database
from tests.conftest import MongoClient
from tests.credits.priced import (
    CREDIT,
    DOLLAR,
    activate,
    active_setting,
    billed,
    new_model,
    new_setting,
    setting_histories,
    settings,
    until_billed,
)
from tests.ledger.calls import refused
from tests.serving import ManualClock, Served, new_key, reason_of, serving

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
ONE = 12 * CREDIT // 10
"""What `billed` comes to at a dollar per 1,000 credits."""


@pytest.fixture(scope="module")
def manual_clock() -> ManualClock:
    """One for all tests here; it only goes on."""
    return ManualClock()


@pytest.fixture(scope="module")
async def clocked(
    mongo_url: str, mongo_client: MongoClient, manual_clock: ManualClock
) -> AsyncIterator[Served]:
    """One server for all tests here: each has models and settings of its own."""
    name = f"test_{new_key()[:16]}"
    async with serving(mongo_url, name, manual_clock) as server:
        yield server
    await mongo_client.drop_database(name)


@pytest.fixture
async def dollar(clocked: Served, manual_clock: ManualClock) -> pb.BillingSetting:
    """The active setting at first: 1,000 credits a dollar."""
    manual_clock.advance(DAY_MS)
    return await activate(clocked, (await new_setting(clocked, DOLLAR)).id)


async def get(served: Served, setting_id: str) -> pb.BillingSetting:
    request = pb.GetBillingSettingRequest(id=setting_id)
    answer: pb.GetBillingSettingResponse = await served.credits.GetBillingSetting(request)
    return answer.billing_setting


async def change(served: Served, setting_id: str, **fields: Any) -> pb.BillingSetting:
    request = pb.UpdateBillingSettingRequest(
        billing_setting=pb.BillingSetting(id=setting_id, **fields),
        update_mask=FieldMask(paths=list(fields)),
    )
    answer: pb.UpdateBillingSettingResponse = await served.credits.UpdateBillingSetting(request)
    return answer.billing_setting


class TestRows:
    async def test_the_first_is_active_and_initial(self, served: Served) -> None:
        (first,) = await settings(served, "is_initial = true")
        assert first.status == pb.BILLING_SETTING_STATUS_ACTIVE
        assert (first.is_initial, first.is_active, first.currency) == (True, True, "USD")
        assert first.credit_price_micros == DOLLAR
        assert first.applied_time.ToMilliseconds() == 0

    async def test_a_new_one_counts_for_nothing(self, served: Served) -> None:
        made = await new_setting(served, 7, description="Cheap.")
        assert made.status == pb.BILLING_SETTING_STATUS_INACTIVE
        assert (made.credit_price_micros, made.description) == (7, "Cheap.")
        assert (made.currency, made.is_active, made.is_initial) == ("USD", True, False)
        assert not made.HasField("applied_time")
        assert await get(served, made.id) == made
        assert made in await settings(served, "status = inactive")

    async def test_what_the_caller_says_of_its_state_is_not_heard(self, served: Served) -> None:
        asked: dict[str, Any] = {
            "status": pb.BILLING_SETTING_STATUS_ACTIVE,
            "is_initial": True,
            "currency": "EUR",
        }
        made = await new_setting(served, **asked)
        assert made.status == pb.BILLING_SETTING_STATUS_INACTIVE
        assert (made.is_initial, made.currency) == (False, "USD")
        with refused("UPDATE_MASK_INVALID"):
            await change(served, made.id, status=pb.BILLING_SETTING_STATUS_ACTIVE)

    async def test_the_price_of_a_setting_stays(self, served: Served) -> None:
        made = await new_setting(served, 7)
        with refused("FIELD_IMMUTABLE"):
            await change(served, made.id, credit_price_micros=8)
        assert (await change(served, made.id, description="Changed.")).description == "Changed."

    async def test_the_active_one_stays(self, served: Served) -> None:
        active, other = await active_setting(served), await new_setting(served)
        calls = served.credits
        with refused("ACTIVE_REQUIRED") as refusal:
            await calls.DeleteBillingSetting(pb.DeleteBillingSettingRequest(id=active.id))
        assert refusal.metadata == {"id": active.id}
        with refused("ACTIVE_REQUIRED"):
            ids = [other.id, active.id]
            await calls.BatchDeleteBillingSettings(pb.BatchDeleteBillingSettingsRequest(ids=ids))
        with refused("ACTIVE_REQUIRED"):
            await calls.PurgeBillingSetting(pb.PurgeBillingSettingRequest(id=active.id))
        with refused("ACTIVE_REQUIRED"):
            await change(served, active.id, is_active=False)
        assert await active_setting(served) == active
        assert not (await get(served, other.id)).is_deleted

    async def test_others_can_be_deleted_restored_and_purged(self, served: Served) -> None:
        made, calls = await new_setting(served), served.credits
        await calls.DeleteBillingSetting(pb.DeleteBillingSettingRequest(id=made.id))
        with refused("RESOURCE_NOT_FOUND"):
            await activate(served, made.id)
        restored = await calls.RestoreBillingSetting(pb.RestoreBillingSettingRequest(id=made.id))
        assert restored.billing_setting.status == pb.BILLING_SETTING_STATUS_INACTIVE
        await calls.PurgeBillingSetting(pb.PurgeBillingSettingRequest(id=made.id))
        with refused("RESOURCE_NOT_FOUND"):
            await get(served, made.id)


class TestActivation:
    async def test_ends_the_other_in_the_same_step(
        self, clocked: Served, manual_clock: ManualClock, dollar: pb.BillingSetting
    ) -> None:
        first, model = dollar, await new_model(clocked)
        dear = await new_setting(clocked, DOLLAR // 2)
        manual_clock.advance(HOUR_MS)
        now = manual_clock.now_ms
        active = await activate(clocked, dear.id)
        assert active.status == pb.BILLING_SETTING_STATUS_ACTIVE
        assert active.applied_time.ToMilliseconds() == now
        assert await active_setting(clocked) == active
        assert (await get(clocked, first.id)).status == pb.BILLING_SETTING_STATUS_INACTIVE
        rows = [
            row
            for row in await setting_histories(clocked)
            if row.created_time == active.applied_time
        ]
        assert {(row.billing_setting_id, row.status) for row in rows} == {
            (first.id, pb.BILLING_SETTING_STATUS_INACTIVE),
            (dear.id, pb.BILLING_SETTING_STATUS_ACTIVE),
        }
        assert await billed(clocked, model.value, now) == 2 * ONE
        assert await billed(clocked, model.value, now - 1) == ONE

    async def test_ahead_of_time_it_counts_from_its_moment(
        self, clocked: Served, manual_clock: ManualClock, dollar: pb.BillingSetting
    ) -> None:
        model, dear = await new_model(clocked), await new_setting(clocked, DOLLAR // 2)
        begins = manual_clock.now_ms + HOUR_MS
        await activate(clocked, dear.id, begins)
        assert (await active_setting(clocked)).id == dear.id
        assert await billed(clocked, model.value, manual_clock.now_ms) == ONE
        # Described anew, it begins no sooner.
        await change(clocked, dear.id, description="From the next hour on.")
        manual_clock.advance(HOUR_MS - 1)
        assert await billed(clocked, model.value, manual_clock.now_ms) == ONE
        manual_clock.advance(1)
        assert await billed(clocked, model.value, manual_clock.now_ms) == 2 * ONE

    async def test_now_supersedes_what_was_to_begin(
        self, clocked: Served, manual_clock: ManualClock, dollar: pb.BillingSetting
    ) -> None:
        model, later = await new_model(clocked), await new_setting(clocked, DOLLAR // 5)
        now = await new_setting(clocked, DOLLAR // 2)
        await activate(clocked, later.id, manual_clock.now_ms + HOUR_MS)
        await activate(clocked, now.id)
        manual_clock.advance(2 * HOUR_MS)
        assert await billed(clocked, model.value, manual_clock.now_ms) == 2 * ONE

    async def test_of_the_active_one_changes_nothing(
        self, clocked: Served, manual_clock: ManualClock, dollar: pb.BillingSetting
    ) -> None:
        active = dollar
        before = len(await setting_histories(clocked))
        manual_clock.advance(HOUR_MS)
        assert await activate(clocked, active.id) == active
        assert await activate(clocked, active.id, manual_clock.now_ms + HOUR_MS) == active
        assert len(await setting_histories(clocked)) == before

    async def test_sooner_than_it_was_set_for(
        self, clocked: Served, manual_clock: ManualClock, dollar: pb.BillingSetting
    ) -> None:
        model, dear = await new_model(clocked), await new_setting(clocked, DOLLAR // 2)
        await activate(clocked, dear.id, manual_clock.now_ms + HOUR_MS)
        await activate(clocked, dear.id)
        assert await billed(clocked, model.value, manual_clock.now_ms) == 2 * ONE

    async def test_later_than_it_was_set_for_is_not_passed_over(
        self, clocked: Served, manual_clock: ManualClock, dollar: pb.BillingSetting
    ) -> None:
        """It would begin when it was set for first, whoever believes otherwise."""
        dear, soon = await new_setting(clocked, DOLLAR // 2), manual_clock.now_ms + HOUR_MS
        await activate(clocked, dear.id, soon)
        with refused("FIELD_INVALID") as refusal:
            await activate(clocked, dear.id, soon + HOUR_MS)
        assert refusal.metadata["field"] == "applied_time"
        await activate(clocked, dollar.id)
        await activate(clocked, dear.id, soon + HOUR_MS)
        model = await new_model(clocked)
        manual_clock.advance(HOUR_MS)
        assert await billed(clocked, model.value, manual_clock.now_ms) == ONE
        manual_clock.advance(HOUR_MS)
        assert await billed(clocked, model.value, manual_clock.now_ms) == 2 * ONE

    async def test_not_in_the_past(
        self, clocked: Served, manual_clock: ManualClock, dollar: pb.BillingSetting
    ) -> None:
        made = await new_setting(clocked)
        with refused("FIELD_INVALID") as refusal:
            await activate(clocked, made.id, manual_clock.now_ms - 1)
        assert refusal.metadata["field"] == "applied_time"

    async def test_not_of_one_that_is_switched_off(self, served: Served) -> None:
        made = await new_setting(served, is_active=False)
        with refused("FIELD_INVALID") as refusal:
            await activate(served, made.id)
        assert refusal.metadata["field"] == "id"

    async def test_once_for_a_request_id(self, clocked: Served) -> None:
        one, other = await new_setting(clocked), await new_setting(clocked)
        request_id = new_key()
        first = await activate(clocked, one.id, request_id=request_id)
        await activate(clocked, other.id)
        assert await activate(clocked, one.id, request_id=request_id) == first
        assert (await active_setting(clocked)).id == other.id
        with refused("REQUEST_ID_REUSED"):
            await activate(clocked, other.id, request_id=request_id)


class TestRace:
    async def test_of_many_activations_in_two_processes_the_last_counts(
        self, mongo_url: str, mongo_client: MongoClient, database: Database
    ) -> None:
        async with (
            serving(mongo_url, database.name) as one,
            serving(mongo_url, database.name) as other,
        ):
            model = await new_model(one)
            made = [await new_setting(one, DOLLAR // parts) for parts in (2, 4, 5, 8, 10, 16)]
            results = await asyncio.gather(
                *(
                    activate(served, setting.id)
                    for served, setting in zip([one, other] * 3, made, strict=True)
                ),
                return_exceptions=True,
            )
            await self.assert_consistent(one, results, len(made), model.value)

    async def assert_consistent(
        self, served: Served, results: list[Any], asked: int, ai_model: str
    ) -> None:
        lost = [error for error in results if isinstance(error, grpc.aio.AioRpcError)]
        # Whoever kept losing was told so, and changed nothing.
        assert {reason_of(error) for error in lost} <= {"CONTENTION"}
        active = await active_setting(served)
        rows = [row for row in await setting_histories(served) if row.reason == "a test"]
        status = pb.BILLING_SETTING_STATUS_ACTIVE
        begun = [row.billing_setting_id for row in rows if row.status == status]
        assert len(begun) == len(set(begun)) == asked - len(lost)
        # Each that was active and is not any more was ended exactly once.
        ended = [row.billing_setting_id for row in rows if row.status != status]
        first = next(row for row in await settings(served) if row.is_initial)
        assert sorted(ended) == sorted({first.id, *begun} - {active.id})
        occurred = active.applied_time.ToMilliseconds()
        # The last one may have been the other process's.
        wanted = ONE * DOLLAR // active.credit_price_micros
        await until_billed(served, ai_model, occurred, wanted)


@pytest.mark.parametrize("field", ["status", "is_initial"])
async def test_an_index_stands_behind_it(
    mongo_client: MongoClient, served: Served, field: str
) -> None:
    indexes = await mongo_client["test_served"]["billing_settings"].index_information()
    (index,) = [i for i in indexes.values() if i["key"] == [(field, 1)]]
    assert index["unique"]
    assert index["partialFilterExpression"]["is_deleted"] is False
