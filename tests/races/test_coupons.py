"""One coupon redeemed at two servers at once: its uses are counted as if by one."""

import asyncio
import random
from collections import Counter
from functools import partial
from typing import Any

from zaaz.catalog.v1.offer_service_pb2_grpc import OfferServiceStub

from server.mongo.database import Database
from tests.conftest import MongoClient
from tests.offers.shop import new_coupon, redeem
from tests.offers.uses import assert_books_agree
from tests.races.callers import persist
from tests.races.conftest import DATABASE, Twins
from tests.serving import new_key

USERS = 30
LIMIT = 41
USER_LIMIT = 2
WORKERS = 4
"""Calls that each process has running at once."""
WORK_SECONDS = 90.0


async def test_no_use_beyond_the_limits(twins: Twins, mongo_client: MongoClient) -> None:
    users = [await twins.here.new_wallet() for _ in range(USERS)]
    coupon = await new_coupon(twins.here, usage_limit=LIMIT, user_usage_limit=USER_LIMIT)
    asked = [(user_id, new_key()) for user_id in users for _ in range(USER_LIMIT + 1)]
    told: dict[str, list[Any]] = {request_id: [] for _, request_id in asked}

    async def work(offers: Any, waiting: list[tuple[str, str]]) -> None:
        while waiting:
            user_id, request_id = waiting.pop()
            answer = await persist(partial(redeem, offers, user_id, coupon.code, request_id))
            told[request_id].append(answer)

    workers = []
    for number, server in enumerate(twins):
        # Each request is made at both.
        waiting = random.Random(number).sample(asked, len(asked))
        offers = OfferServiceStub(server.channel)
        workers += [work(offers, waiting) for _ in range(WORKERS)]
    async with asyncio.timeout(WORK_SECONDS):
        await asyncio.gather(*workers)

    granted = 0
    for here, there in told.values():
        if isinstance(here, str) and isinstance(there, str):
            continue
        assert here == there
        granted += 1
    assert granted == LIMIT
    reasons = Counter(
        answer for pair in told.values() for answer in pair if isinstance(answer, str)
    )
    assert set(reasons) <= {"COUPON_USED_UP", "COUPON_USED_BY_USER"}
    database = Database(mongo_client, DATABASE)
    assert await assert_books_agree(twins.there, database, coupon, users) == LIMIT
