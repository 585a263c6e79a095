"""Makes and funds a run's wallets. Doing it again changes nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from zaaz.credits.v1.credits_service_pb2 import GrantCreditsRequest
from zaaz.ledger.v1.grant_pb2 import INCREASE_SOURCE_BONUS
from zaaz.wallet.v1.wallet_service_pb2 import CreateWalletRequest

from zaaz_client.client import ZaazClient
from zaaz_client.replay.plan import Plan
from zaaz_client.retry import retry

MAX_CONCURRENT_CALLS: Final = 32


async def fund_wallets(
    client: ZaazClient, plan: Plan, patience_seconds: float, done: Callable[[], None]
) -> None:
    """A wallet with the run's funds for each user; `done` is called after each."""

    async def fund(user: int) -> None:
        create = CreateWalletRequest(
            request_id=plan.request_id("create", user), user_id=plan.user_ids[user]
        )
        grant = GrantCreditsRequest(
            request_id=plan.request_id("fund", user),
            user_id=plan.user_ids[user],
            credits_micros=plan.parameters.funds_micros,
            source=INCREASE_SOURCE_BONUS,
            reason=f"zaaz replay {plan.run_id}",
        )
        await retry(lambda: client.wallets.CreateWallet(create), patience_seconds)
        await retry(lambda: client.credits.GrantCredits(grant), patience_seconds)
        done()

    await for_each(fund, range(len(plan.user_ids)), MAX_CONCURRENT_CALLS)


async def for_each(
    work: Callable[[int], Awaitable[None]], items: Iterable[int], concurrency: int
) -> None:
    """`work` for every item, some at a time. The first error ends it and is raised."""
    remaining = iter(items)

    async def worker() -> None:
        for item in remaining:
            await work(item)

    tasks = [asyncio.create_task(worker()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
