"""Coupons redeemed while the server dies: no use without its credits, no credits without a use."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
from zaaz.catalog.v1.offer_service_pb2 import RedeemCouponRequest, RedeemCouponResponse
from zaaz_client import ZaazClient, ZaazError

from server.mongo.client import connect
from server.mongo.database import Database
from server.mongo.embedded import EmbeddedMongod
from tests.conftest import MongoClient
from tests.crash.conftest import OwnServer
from tests.crash.killer import Killer, Victim
from tests.offers.shop import new_coupon
from tests.offers.uses import assert_books_agree
from tests.serving import connected, new_key

CALLERS = 12
REDEMPTIONS_A_CALLER = 20
USERS = 8
FEW = 40
"""Uses of the coupon that runs out on the way."""
RETRY_SECONDS = (0.02, 0.2)
WORK_SECONDS = 120.0

Answer = RedeemCouponResponse | str


@pytest.fixture(scope="module")
async def mongo_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Of a mongod that soon ends what a killed server has left open: all want one coupon's row."""
    place = tmp_path_factory.mktemp("coupons")
    parameters = {"transactionLifetimeLimitSeconds": "2"}
    mongod = EmbeddedMongod(place, cache_gigabytes=0.25, parameters=parameters)
    yield await mongod.start()
    await mongod.stop()


@pytest.fixture(scope="module")
async def mongo_client(mongo_url: str) -> AsyncIterator[MongoClient]:
    client = await connect(mongo_url)
    yield client
    await client.close()


class Callers:
    """Redeem until each request is answered, or refused for a reason that stays."""

    def __init__(self, client: ZaazClient, rng: random.Random) -> None:
        self.told: list[tuple[RedeemCouponRequest, Answer]] = []
        self._client = client
        self._rng = rng

    async def run(self, requests: list[RedeemCouponRequest]) -> None:
        """One caller: one request after the other."""
        for request in requests:
            self.told.append((request, await self.send(request)))

    async def send(self, request: RedeemCouponRequest) -> Answer:
        """The answer or the reason, however many tries it takes."""
        while True:
            try:
                return await self._client.offers.RedeemCoupon(request)
            except ZaazError as error:
                if not error.retryable:
                    return error.reason
            await asyncio.sleep(self._rng.uniform(*RETRY_SECONDS))


async def test_each_use_has_its_credits(
    own_server: OwnServer, mongo_client: MongoClient, rng: random.Random, rounds: int
) -> None:
    command, key, name = own_server
    target, database = command.ready["grpc"], Database(mongo_client, name)
    async with connected(target, key) as served:
        users = [await served.new_wallet() for _ in range(USERS)]
        many = await new_coupon(served, credits_micros=3)
        few = await new_coupon(served, credits_micros=5, usage_limit=FEW, user_usage_limit=FEW // 4)
    killer = Killer(command, rng, [Victim.SERVER])
    async with ZaazClient(target, key) as client:
        callers = Callers(client, rng)
        answered: Callable[[], int] = lambda: len(callers.told)  # noqa: E731
        async with asyncio.timeout(WORK_SECONDS + 20 * rounds), asyncio.TaskGroup() as tasks:
            total = CALLERS * REDEMPTIONS_A_CALLER
            tasks.create_task(killer.run(answered, total, rounds))
            for _ in range(CALLERS):
                requests = [
                    RedeemCouponRequest(
                        request_id=new_key(),
                        user_id=rng.choice(users),
                        code=rng.choice([many.code, few.code]),
                    )
                    for _ in range(REDEMPTIONS_A_CALLER)
                ]
                tasks.create_task(callers.run(requests))
        assert killer.struck == rounds

        # Made once more: who was granted something is told the same.
        done = [(request, answer) for request, answer in callers.told if type(answer) is not str]
        again = await asyncio.gather(*(callers.send(request) for request, _ in done))
        assert again == [answer for _, answer in done]
    granted = Counter(request.code for request, _ in done)
    reasons = {answer for _, answer in callers.told if isinstance(answer, str)}
    assert reasons <= {"COUPON_USED_UP", "COUPON_USED_BY_USER"}
    async with connected(target, key) as served:
        for coupon in (many, few):
            uses = await assert_books_agree(served, database, coupon, users)
            assert uses == granted[coupon.code]
    assert granted[few.code] <= FEW
    assert granted[many.code] == sum(request.code == many.code for request, _ in callers.told)
