"""What is told of packages afterwards: balances of the past, statements, alerts, lists."""

import asyncio
from typing import Any

from zaaz.ledger.v1 import wallet_alert_pb2
from zaaz.subscriptions.v1 import package_transaction_pb2
from zaaz.wallet.v1 import statement_service_pb2

from server.kernel.clock import DAY_MS
from server.workers.expiry import NOTICE_MS
from tests.ledger.calls import at, refused
from tests.serving import connected, make_key, new_key
from tests.subscriptions.conftest import DATABASE
from tests.subscriptions.market import FIVE_CREDITS, MONTH_MS, Market
from tests.wallet.statements import get_pages, verdict_on
from tests.workers.alerts import ALERT_SECONDS, alerts_of

PACKAGE_EXPIRED = wallet_alert_pb2.WALLET_ALERT_KIND_PACKAGE_EXPIRED
PACKAGE_EXPIRING = wallet_alert_pb2.WALLET_ALERT_KIND_PACKAGE_EXPIRING


async def balance_at(market: Market, user_id: str, time_ms: int) -> int:
    request = statement_service_pb2.GetBalanceAtRequest(user_id=user_id, time=at(time_ms))
    return int((await market.served.statements.GetBalanceAt(request)).credits_micros)


async def test_balances_of_the_past(market: Market) -> None:
    first, following = await market.package(), await market.package(credits_micros=7)
    user_id, began_ms = await market.served.new_wallet(), market.clock()
    await market.activate(user_id, first)
    await market.schedule(user_id, following)
    market.clock.advance(3 * MONTH_MS)
    # What time did is known whether or not it has an entry by now.
    for _ in range(2):
        expected = {0: FIVE_CREDITS, MONTH_MS - 1: FIVE_CREDITS, MONTH_MS: 7}
        expected |= {2 * MONTH_MS - 1: 7, 2 * MONTH_MS: 0, 3 * MONTH_MS: 0}
        for after_ms, credits_micros in expected.items():
            assert await balance_at(market, user_id, began_ms + after_ms) == credits_micros
        market.clock.advance(1)
        await market.served.grant(user_id, 1)


async def test_a_statement_is_good(market: Market) -> None:
    first, following = await market.package(), await market.package(credits_micros=0)
    user_id = await market.served.new_wallet()
    await market.activate(user_id, first)
    await market.schedule(user_id, following)
    market.clock.advance(3 * MONTH_MS)
    await market.served.grant(user_id, 1)
    pages = await get_pages(market.served, user_id)
    for name in ("jsonl", "csv"):
        verdict = await verdict_on(market.served, pages, name)
        assert verdict.good
    await market.served.assert_sound(user_id)


async def until_told(market: Market, user_id: str, kind: int) -> wallet_alert_pb2.WalletAlert:
    """The user's last alert of the kind, once there is one."""
    async with asyncio.timeout(ALERT_SECONDS):
        while True:
            told = [a for a in await alerts_of(market.served, user_id) if a.kind == kind]
            if told:
                return told[-1]
            await asyncio.sleep(0.05)


async def test_its_end_is_told_before_and_after(market: Market) -> None:
    sold, user_id = await market.package(credits_micros=0, days=2), await market.served.new_wallet()
    ends = (await market.activate(user_id, sold)).wallet.expires_time
    # Looked for once an hour, which has passed.
    market.clock.advance(NOTICE_MS)
    soon = await until_told(market, user_id, PACKAGE_EXPIRING)
    assert (soon.days, soon.time, soon.package_id) == (7, ends, sold.package_id)
    market.clock.advance(2 * DAY_MS)
    over = await until_told(market, user_id, PACKAGE_EXPIRED)
    assert (over.time, over.package_id) == (ends, sold.package_id)


async def test_a_list_by_user_and_kind(market: Market) -> None:
    sold, user_id = await market.package(), await market.served.new_wallet()
    for _ in range(3):
        await market.activate(user_id, sold)

    async def listed(text: str, **fields: Any) -> Any:
        request = package_transaction_pb2.ListPackageTransactionsRequest(filter=text, **fields)
        return await market.subscriptions.ListPackageTransactions(request)

    renewed = await listed(f"user_id = {user_id} AND kind = RENEWED", page_size=1)
    assert len(renewed.package_transactions) == 1
    assert renewed.next_page_token
    (row,) = renewed.package_transactions
    get = package_transaction_pb2.GetPackageTransactionRequest(id=row.id)
    answer = await market.subscriptions.GetPackageTransaction(get)
    assert answer.package_transaction == row


async def test_who_may(market: Market, mongo_url: str) -> None:
    sold, user_id = await market.package(), await market.served.new_wallet()
    for scopes, may in (
        (["subscriptions.write"], {"activate"}),
        (["subscriptions.read", "wallet.write", "credits.write", "catalog.write"], set[str]()),
        (["admin"], {"activate", "assign"}),
    ):
        key = await make_key(mongo_url, DATABASE, f"c-{new_key()}", scopes)
        async with connected(market.served.target, key) as served:
            theirs = Market(served, market.clock)
            for name in ("activate", "assign"):
                call = getattr(theirs, name)
                if name in may:
                    await call(user_id, sold)
                else:
                    with refused("SCOPE_MISSING"):
                        await call(user_id, sold)
