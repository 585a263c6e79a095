"""Kept usage is tried again as of the day it came: waiting in the list does not make it late."""

from zaaz.credits.v1 import usage_service_pb2 as pb

from tests.ledger.calls import PRICE, reasons
from tests.serving import ManualClock, Served, new_user, usage_event

DAY_MS = 86_400_000


async def kept(served: Served, user_id: str) -> list[pb.RejectedUsage]:
    request = pb.ListRejectedUsageRequest(user_id=user_id)
    return list((await served.usage.ListRejectedUsage(request)).rejected_usages)


async def replay(served: Served, user_id: str) -> list[str]:
    ids = [row.id for row in await kept(served, user_id)]
    request = pb.ReplayRejectedUsageRequest(ids=ids)
    return reasons((await served.usage.ReplayRejectedUsage(request)).results)


async def test_what_came_in_time_is_billed_however_late_it_is_replayed(
    clocked: Served, manual_clock: ManualClock
) -> None:
    user_id = new_user()
    event = usage_event(user_id, occurred_ms=manual_clock() - 35 * DAY_MS)
    assert reasons(await clocked.record(event)) == ["WALLET_NOT_FOUND"]
    manual_clock.advance(29 * DAY_MS)
    await clocked.new_wallet(PRICE, user_id)
    assert await replay(clocked, user_id) == [""]
    assert (await clocked.wallet(user_id)).credits_micros == 0
    assert await kept(clocked, user_id) == []


async def test_what_came_too_late_stays_so(clocked: Served, manual_clock: ManualClock) -> None:
    user_id = await clocked.new_wallet(PRICE)
    event = usage_event(user_id, occurred_ms=manual_clock() - 35 * DAY_MS - 1)
    for _ in range(2):
        assert reasons(await clocked.record(event)) == ["OCCURRED_TIME_OUT_OF_RANGE"]
        assert await replay(clocked, user_id) == ["OCCURRED_TIME_OUT_OF_RANGE"]
        manual_clock.advance(DAY_MS)
    assert (await clocked.wallet(user_id)).credits_micros == PRICE


async def test_what_came_early_is_billed_when_its_time_has_come(
    clocked: Served, manual_clock: ManualClock
) -> None:
    user_id = await clocked.new_wallet(PRICE)
    event = usage_event(user_id, occurred_ms=manual_clock() + DAY_MS)
    assert reasons(await clocked.record(event)) == ["OCCURRED_TIME_OUT_OF_RANGE"]
    assert await replay(clocked, user_id) == ["OCCURRED_TIME_OUT_OF_RANGE"]
    manual_clock.advance(DAY_MS)
    assert await replay(clocked, user_id) == [""]
    assert (await clocked.wallet(user_id)).credits_micros == 0
