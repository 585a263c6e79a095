"""Holds placed at one server and ended at another: exact books, and no hold ends twice."""

import asyncio
import random
import sys
from functools import partial
from typing import Any

from zaaz.credits.v1 import credits_process_service_pb2 as pb
from zaaz.credits.v1.usage_service_pb2 import RecordUsageRequest, UsageEvent
from zaaz.ledger.v1 import hold_pb2

from tests.credits.priced import change_model, dollars, new_model
from tests.holds.conftest import HELD_MICROS, Holder
from tests.holds.work import Work, assert_as_told, assert_ended_once
from tests.races.callers import outcome, persist
from tests.races.conftest import Twins
from tests.serving import MODEL, Served, new_key, usage_event

CALLERS = 300
WALLETS = 10
AT_ONCE = 40
"""Of the callers: two processes on one wallet lose each other's transactions all the time."""
WORK_SECONDS = 90.0


async def test_books_are_what_the_answers_said(twins: Twins) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    sys.stdout.write(f"seed {seed}\n")
    funds = {}
    for place in range(WALLETS):
        micros = HELD_MICROS * (3 * CALLERS if place % 2 else 5) + 1
        funds[await twins.here.new_wallet(micros)] = micros
    work, users = Work(twins, random.Random(seed)), list(funds)
    room = asyncio.Semaphore(AT_ONCE)

    async def once(user_id: str) -> None:
        async with room:
            await work.once(user_id)

    async with asyncio.timeout(WORK_SECONDS):
        await asyncio.gather(*(once(users[number % WALLETS]) for number in range(CALLERS)))
    assert work.told["ended"] == 0
    assert len(work.ends) + work.denied == CALLERS
    for served in twins:
        await assert_as_told(served, work, funds)


async def test_a_hold_ends_once_whoever_ends_it(twins: Twins) -> None:
    user_id = await twins.here.new_wallet(20 * HELD_MICROS)
    here, there = (Holder(served) for served in twins)
    for number in range(10):
        hold = await here.place(user_id) if number % 2 else await there.place(user_id)
        calls = [
            persist(partial(here.capture, hold.id, (500, 250), request_id=new_key())),
            persist(partial(there.capture, hold.id, (500, 250), request_id=new_key())),
            persist(partial(here.release, hold.id, request_id=new_key())),
            persist(partial(there.release, hold.id, request_id=new_key())),
        ]
        answers = await asyncio.gather(*calls)
        assert sum(answer != "HOLD_ENDED" for answer in answers) == 1
    for served in twins:
        await assert_ended_once(served, user_id)


async def test_usage_of_a_hold_that_was_billed_elsewhere_is_refused(twins: Twins) -> None:
    """Neither server knows of what the other did last."""
    user_id = await twins.here.new_wallet(20 * HELD_MICROS)
    here, there = (Holder(served) for served in twins)
    for one, other in ((here, there), (there, here)):
        billed, released = await one.place(user_id), await one.place(user_id)
        await persist(partial(other.capture, billed.id, request_id=new_key()))
        await persist(partial(other.release, released.id, request_id=new_key()))
        event = usage_event(user_id, hold_id=billed.id)
        answer = await persist(partial(record, one.served, event))
        assert "HOLD_ENDED" in str(answer)
        event = usage_event(user_id, hold_id=released.id)
        answer = await persist(partial(record, one.served, event))
        assert answer.results[0].receipt.credits_micros == HELD_MICROS
    await assert_ended_once(twins.here, user_id)


def record(served: Served, event: UsageEvent) -> Any:
    return served.usage.RecordUsage(RecordUsageRequest(events=[event]))


async def test_access_is_checked_against_what_another_server_wrote(twins: Twins) -> None:
    """A wallet in memory that says no is no reason to say so; one that says yes, for a moment."""
    user_id = await twins.here.new_wallet(HELD_MICROS)
    request = pb.CheckAccessRequest(
        user_id=user_id, ai_model=MODEL, max_input_tokens=1_000, max_output_tokens=500
    )
    for served, other in (twins, twins[::-1]):
        assert (await served.process.CheckAccess(request)).allowed
        await persist(partial(other.consume, user_id, 1, new_key()))
        async with asyncio.timeout(WORK_SECONDS):
            answer = await served.process.CheckAccess(request)
            while answer.allowed:
                await asyncio.sleep(0.05)
                answer = await served.process.CheckAccess(request)
        assert answer.available_micros == HELD_MICROS - 1
        await persist(partial(other.grant, user_id, 1, request_id=new_key()))
        answer = await served.process.CheckAccess(request)
        assert (answer.allowed, answer.available_micros) == (True, HELD_MICROS)
        assert await outcome(served.consume(user_id, HELD_MICROS + 1)) == "INSUFFICIENT_CREDITS"


async def test_what_was_held_is_billed_while_prices_change(twins: Twins) -> None:
    """A server learns of another's change a moment late: a hold's own prices are pinned."""
    # More than one: no wallet may have so many holds as a server can place in half a second.
    users = [await twins.here.new_wallet(10**12) for _ in range(WALLETS)]
    model = await new_model(twins.here, 1)
    there = Holder(twins.there)
    asked: dict[str, Any] = {"ai_model": model.value, "max_input_tokens": 1_000}
    async with asyncio.timeout(WORK_SECONDS):
        while isinstance(await outcome(there.authorize(users[0], **asked)), str):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    holds: list[hold_pb2.Hold] = []
    for amount in (2, 3):
        await change_model(twins.here, model.id, prices=dollars(amount))
        async with asyncio.timeout(WORK_SECONDS):
            while not holds or holds[-1].held_micros < (1_200_000 * amount):
                user_id = users[len(holds) % WALLETS]
                holds.append(await there.place(user_id, max_output_tokens=0, **asked))
    for hold in holds:
        answer = await persist(partial(there.capture, hold.id, (1_000, 0), request_id=new_key()))
        assert answer.transaction.credits_micros == hold.held_micros
