"""What tests of alerts ask again and again: which there are, until there are enough."""

import asyncio

from zaaz.ledger.v1 import wallet_alert_pb2, wallet_pb2
from zaaz.wallet.v1 import wallet_service_pb2 as pb

from tests.serving import Served, new_key

ALERT_SECONDS = 8.0
"""Bound on the way of an alert; it takes a moment, or a sweep."""

LOW, EXHAUSTED, EXPIRED, EXPIRING = (
    wallet_alert_pb2.WALLET_ALERT_KIND_LOW_BALANCE,
    wallet_alert_pb2.WALLET_ALERT_KIND_EXHAUSTED,
    wallet_alert_pb2.WALLET_ALERT_KIND_CREDITS_EXPIRED,
    wallet_alert_pb2.WALLET_ALERT_KIND_CREDITS_EXPIRING,
)


async def page_of_alerts(
    served: Served, user_id: str = "", size: int = 0, token: str = ""
) -> pb.ListWalletAlertsResponse:
    answer: pb.ListWalletAlertsResponse = await served.wallets.ListWalletAlerts(
        pb.ListWalletAlertsRequest(user_id=user_id, page_size=size, page_token=token)
    )
    return answer


async def alerts_of(served: Served, user_id: str) -> list[wallet_alert_pb2.WalletAlert]:
    """Oldest first."""
    return list((await page_of_alerts(served, user_id, 1_000)).wallet_alerts)[::-1]


async def until_alerts(
    served: Served, user_id: str, count: int
) -> list[wallet_alert_pb2.WalletAlert]:
    """The user's alerts once there are so many, oldest first."""
    async with asyncio.timeout(ALERT_SECONDS):
        found = await alerts_of(served, user_id)
        while len(found) < count:
            await asyncio.sleep(0.05)
            found = await alerts_of(served, user_id)
    return found


async def set_threshold(served: Served, user_id: str, micros: int) -> None:
    wallet = wallet_pb2.Wallet(user_id=user_id, low_balance_threshold_micros=micros)
    await served.wallets.UpdateWallet(pb.UpdateWalletRequest(request_id=new_key(), wallet=wallet))


async def settled(served: Served) -> None:
    """All alerts of transactions so far are there: one that came later is."""
    marker = await served.new_wallet(1)
    await served.consume(marker, 1)
    await until_alerts(served, marker, 1)
