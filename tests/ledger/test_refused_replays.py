"""A replay is answered as its first run was, also where running it now would be refused."""

import asyncio
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from zaaz.credits.v1.credits_service_pb2 import ReverseCreditsTransactionRequest
from zaaz.ledger.v1.wallet_pb2 import Wallet
from zaaz.wallet.v1.wallet_service_pb2 import UpdateWalletRequest

from tests.serving import ManualClock, Served, new_key, new_user


async def test_consume_that_has_spent_the_last_credit(served: Served) -> None:
    user_id, request_id = await served.new_wallet(5), new_key()
    first = await served.consume(user_id, 5, request_id)
    assert await served.consume(user_id, 5, request_id) == first


async def test_consumes_that_arrive_twice_at_once(served: Served) -> None:
    """The second of each comes while the first is perhaps on its way to the database."""
    keys = {new_user(): new_key() for _ in range(32)}
    await asyncio.gather(*(served.new_wallet(7, user_id) for user_id in keys))
    pairs: list[tuple[Any, Any]] = await asyncio.gather(
        *(
            asyncio.gather(served.consume(user_id, 7, key), served.consume(user_id, 7, key))
            for user_id, key in keys.items()
        )
    )
    assert all(first == second for first, second in pairs)


async def test_grant_whose_expiry_has_passed(clocked: Served, manual_clock: ManualClock) -> None:
    expires = Timestamp()
    expires.FromMilliseconds(manual_clock.now_ms + 1_000)
    user_id, request_id = await clocked.new_wallet(), new_key()
    first = await clocked.grant(user_id, 5, request_id=request_id, expires_time=expires)
    manual_clock.advance(2_000)
    assert await clocked.grant(user_id, 5, request_id=request_id, expires_time=expires) == first


async def test_update_with_the_etag_that_it_has_changed(served: Served) -> None:
    user_id = await served.new_wallet()
    wallet = Wallet(user_id=user_id, low_balance_threshold_micros=9)
    wallet.etag = (await served.wallet(user_id)).etag
    mask = FieldMask(paths=["low_balance_threshold_micros"])
    request = UpdateWalletRequest(request_id=new_key(), wallet=wallet, update_mask=mask)
    first = await served.wallets.UpdateWallet(request)
    assert await served.wallets.UpdateWallet(request) == first


async def test_reversal_of_a_grant_that_it_has_taken_back(served: Served) -> None:
    user_id = await served.new_wallet()
    granted = await served.grant(user_id, 5)
    request = ReverseCreditsTransactionRequest(request_id=new_key(), id=granted.transaction.id)
    first = await served.credits.ReverseCreditsTransaction(request)
    assert await served.credits.ReverseCreditsTransaction(request) == first
