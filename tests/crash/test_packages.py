"""Packages sold while everything dies: each sale has one effect, however often it is asked for."""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from zaaz.catalog.v1 import coupon_pb2
from zaaz_client import ZaazClient, ZaazError

from tests.crash.killer import Killer, Victim
from tests.run.command import Command
from tests.serving import ManualClock, Served, connected, new_key, new_user
from tests.subscriptions.market import FIVE_CREDITS, Market, Sold, pb

CALLERS = 8
SALES_A_CALLER = 20
USERS = 12
USES = 50
RETRY_SECONDS = (0.02, 0.2)
WORK_SECONDS = 120.0


class Sales:
    """Callers that onboard users and sell them a package, until each call is answered."""

    def __init__(self, client: ZaazClient, sold: Sold, code: str, rng: random.Random) -> None:
        self.calls: list[tuple[str, Any, Any]] = []
        self._subscriptions: Any = client.subscriptions
        self._sold = sold
        self._code = code
        self._rng = rng

    async def run(self, users: list[str]) -> None:
        for user_id in users:
            await self._make("OnboardUser", pb.OnboardUserRequest, user_id=user_id)
            sold = {"package_id": self._sold.package_id, "plan_id": self._sold.plan_id}
            code = self._code if self._rng.random() < 0.5 else ""
            await self._make(
                "ActivatePackage",
                pb.ActivatePackageRequest,
                user_id=user_id,
                coupon_code=code,
                **sold,
            )

    async def call(self, name: str, request: Any) -> Any:
        """The answer, or the reason against it, however many tries it takes."""
        while True:
            try:
                return await getattr(self._subscriptions, name)(request)
            except ZaazError as error:
                if not error.retryable:
                    return error.reason
            await asyncio.sleep(self._rng.uniform(*RETRY_SECONDS))

    async def _make(self, name: str, kind: Any, **fields: Any) -> None:
        request = kind(request_id=new_key(), **fields)
        self.calls.append((name, request, await self.call(name, request)))


async def test_each_sale_has_one_effect(server: Command, rng: random.Random, rounds: int) -> None:
    target, key = server.ready["grpc"], server.ready["api_key"]
    users = [new_user() for _ in range(USERS)]
    async with connected(target, key) as served:
        market = Market(served, ManualClock())
        sold = await market.package(is_initial=True)
        coupon = await _coupon(served)
    killer = Killer(server, rng, rng.sample(list(Victim), len(Victim)))
    async with ZaazClient(target, key) as client:
        sales = Sales(client, sold, coupon.code, rng)
        answered: Callable[[], int] = lambda: len(sales.calls)  # noqa: E731
        total = 2 * CALLERS * SALES_A_CALLER
        async with asyncio.timeout(WORK_SECONDS + 20 * rounds), asyncio.TaskGroup() as tasks:
            tasks.create_task(killer.run(answered, total, rounds))
            for _ in range(CALLERS):
                tasks.create_task(sales.run([rng.choice(users) for _ in range(SALES_A_CALLER)]))
        assert killer.struck == rounds
        again = [sales.call(name, request) for name, request, _ in sales.calls]
        for answer, (_, _, first) in zip(await asyncio.gather(*again), sales.calls, strict=True):
            assert answer == first if isinstance(first, str) else _same(answer, first)
    async with connected(target, key) as served:
        await _assert_one_effect_each(Market(served, ManualClock()), users, sales, coupon)


async def _coupon(served: Served) -> coupon_pb2.Coupon:
    coupon = coupon_pb2.Coupon(
        code=f"C{new_key()}".upper(),
        discount_type=coupon_pb2.DISCOUNT_TYPE_PERCENTAGE,
        discount_ppm=1,
        usage_limit=USES,
        is_active=True,
    )
    made = await served.catalog.CreateCoupon(coupon_pb2.CreateCouponRequest(coupon=coupon))
    answer: coupon_pb2.Coupon = made.coupon
    return answer


def _same(answer: Any, first: Any) -> bool:
    return bool(answer.transaction == first.transaction)


async def _assert_one_effect_each(
    market: Market, users: list[str], sales: Sales, coupon: coupon_pb2.Coupon
) -> None:
    sold = [call for call in sales.calls if not isinstance(call[2], str)]
    refused = {call[2] for call in sales.calls if isinstance(call[2], str)}
    assert refused <= {"COUPON_USED_UP"}
    for user_id in users:
        mine = [call for call in sold if call[1].user_id == user_id]
        entries = {call[2].transaction.id for call in mine if call[2].transaction.id}
        given = sum(call[0] == "OnboardUser" and call[2].given for call in mine)
        assert given == min(1, len(mine))
        assert {row.id for row in await market.served.transactions(user_id)} == entries
        assert {row.credits_transaction_id for row in await market.events(user_id)} == entries
        wallet = await market.wallet(user_id)
        assert wallet.credits_micros == FIVE_CREDITS * len(entries)
        await market.served.assert_sound(user_id)
    used = sum(bool(getattr(call[1], "coupon_code", "")) for call in sold)
    get = partial(coupon_pb2.GetCouponRequest, id=coupon.id)
    stored = (await market.served.catalog.GetCoupon(get())).coupon
    assert stored.usage_count == used <= USES
