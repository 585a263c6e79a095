"""What one server was told, another does not refuse for want of having looked."""

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
from zaaz.credits.v1 import feature_usage_log_pb2

from server.mongo.database import Database
from tests.catalog.calls import change_endpoint, new_endpoint
from tests.credits.priced import new_model
from tests.feature_usage.interactions import interaction
from tests.holds.conftest import Holder
from tests.serving import Served, serving, usage_event

CREDIT = 1_000_000
ROUNDS = 5


class Two(NamedTuple):
    one: Served
    other: Served


@pytest.fixture
async def two(mongo_url: str, database: Database) -> AsyncIterator[Two]:
    async with serving(mongo_url, database.name) as one, serving(mongo_url, database.name) as other:
        yield Two(one, other)


async def test_is_let_in_everywhere_at_once(two: Two) -> None:
    holder = Holder(two.other)
    user_id = await two.one.new_wallet(1_000 * CREDIT)
    for _ in range(ROUNDS):
        endpoint = await new_endpoint(two.one, 70, is_active=False)
        asked = {"ai_model": "", "feature_endpoint": endpoint.value}
        assert not (await holder.authorize(user_id, **asked)).allowed
        await change_endpoint(two.one, endpoint.id, is_active=True)
        assert (await holder.authorize(user_id, **asked)).allowed
        model = await new_model(two.one)
        assert (await holder.authorize(user_id, ai_model=model.value)).allowed


async def test_is_billed_and_kept_everywhere_at_once(two: Two) -> None:
    user_id = await two.one.new_wallet(1_000 * CREDIT)
    for _ in range(ROUNDS):
        endpoint, model = await new_endpoint(two.one, 70), await new_model(two.one)
        event = usage_event(user_id, ai_model=model.value, feature_endpoint=endpoint.value)
        (billed,) = await two.other.record(event)
        assert billed.receipt.credits_micros > 70
        fresh = await new_endpoint(two.one)
        request = feature_usage_log_pb2.RecordFeatureUsageRequest(
            events=[interaction(user_id, fresh.value)]
        )
        (kept,) = (await two.other.usage.RecordFeatureUsage(request)).results
        assert kept.feature_usage_log_id
