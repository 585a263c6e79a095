"""Hundreds of holds at once on few wallets: exact books, whatever runs out of time meanwhile."""

import asyncio
import random
import sys

import pytest

from tests.holds.conftest import HELD_MICROS, Holder
from tests.holds.work import Work, assert_as_told, assert_ended_once, holds_of
from tests.races.callers import outcome
from tests.serving import ManualClock, Served

CALLERS = 300
WALLETS = 10
WORK_SECONDS = 60.0


@pytest.fixture
def rng() -> random.Random:
    seed = random.SystemRandom().randrange(1_000_000)
    sys.stdout.write(f"seed {seed}\n")
    return random.Random(seed)


async def new_wallets(served: Served) -> dict[str, int]:
    """Half of the users can pay for all that is asked of them."""
    funds = {}
    for place in range(WALLETS):
        micros = HELD_MICROS * (3 * CALLERS if place % 2 else 5) + 1
        funds[await served.new_wallet(micros)] = micros
    return funds


async def test_books_are_what_the_answers_said(served: Served, rng: random.Random) -> None:
    funds, work = await new_wallets(served), Work([served], rng)
    users = list(funds)
    async with asyncio.timeout(WORK_SECONDS):
        await asyncio.gather(*(work.once(users[n % WALLETS]) for n in range(CALLERS)))
    assert work.told["ended"] == 0
    assert len(work.ends) + work.denied == CALLERS
    assert min(work.told.values()) > 0
    assert work.denied > 0
    await assert_as_told(served, work, funds)


async def test_holds_run_out_meanwhile(
    clocked: Served, manual_clock: ManualClock, rng: random.Random
) -> None:
    funds = await new_wallets(clocked)
    users = list(funds)
    # A hold's time is that of some ten others' beginnings.
    work = Work([clocked], rng, manual_clock, lambda: manual_clock.advance(rng.randint(0, 3_000)))
    async with asyncio.timeout(WORK_SECONDS):
        await asyncio.gather(
            *(work.once(users[n % WALLETS], ttl_seconds=rng.randint(1, 30)) for n in range(CALLERS))
        )
    assert work.told["ended"] > 0
    manual_clock.advance(3_600_000)
    for user_id, granted in funds.items():
        seen = await clocked.wallet(user_id)
        # What reads compute is what is written in the end.
        await clocked.grant(user_id, 1)
        wallet = await clocked.wallet(user_id)
        assert wallet.credits_micros == seen.credits_micros + 1
        await assert_ended_once(clocked, user_id)
        entries = await clocked.transactions(user_id)
        spent = sum(row.credits_micros for row in entries if row.type == 2)
        assert wallet.credits_micros == granted + 1 - spent
        for hold in await holds_of(clocked, user_id):
            told = work.ends[hold.id]
            if hold.state == 4:
                # Nothing was billed of it, or the use came late and was billed like any other.
                assert told == -1 or hold.captured_micros == 0
            else:
                assert hold.captured_micros == told


async def test_the_last_credits_are_held_once(served: Served) -> None:
    user_id = await served.new_wallet(3 * HELD_MICROS + HELD_MICROS // 2)
    holder = Holder(served)
    answers = await asyncio.gather(*(holder.authorize(user_id) for _ in range(60)))
    assert sum(answer.allowed for answer in answers) == 3
    short = [a.denials[0].metadata["shortfall_micros"] for a in answers if not a.allowed]
    assert set(short) == {str(HELD_MICROS // 2)}
    assert await outcome(served.consume(user_id, HELD_MICROS // 2 + 1)) == "INSUFFICIENT_CREDITS"
    await served.consume(user_id, HELD_MICROS // 2)
    for answer in answers:
        if answer.allowed:
            await holder.release(answer.hold.id)
    await assert_ended_once(served, user_id)


async def test_extensions_at_once_do_not_sink_each_other(served: Served) -> None:
    """Each raises one bound; in the end both are as high as was answered last for them."""
    user_id = await served.new_wallet(1_000 * HELD_MICROS)
    holder = Holder(served)
    hold = await holder.place(user_id)
    calls = []
    for step in range(1, 21):
        calls.append(outcome(holder.extend(hold.id, max_input_tokens=1_000 + 100 * step)))
        calls.append(outcome(holder.extend(hold.id, max_output_tokens=500 + 100 * step)))
    answers = await asyncio.gather(*calls)
    kept = [answer.hold for answer in answers if not isinstance(answer, str)]
    assert kept
    last = await holder.get(hold.id)
    assert last.max_input_tokens == max(one.max_input_tokens for one in kept)
    assert last.max_output_tokens == max(one.max_output_tokens for one in kept)
    for place, answer in enumerate(answers):
        step = place // 2 + 1
        if isinstance(answer, str):
            assert answer == "CONTENTION"
        elif place % 2:
            assert answer.hold.max_output_tokens >= 500 + 100 * step
        else:
            assert answer.hold.max_input_tokens >= 1_000 + 100 * step
    await holder.release(hold.id)
    await assert_ended_once(served, user_id)
