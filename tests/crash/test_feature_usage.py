"""Interactions through the SDK's stream while everything dies: each is kept once."""

import asyncio
import random

from zaaz_client import UsageStream, ZaazClient
from zaaz_client.wire import StreamEvent

from tests.crash.books import next_offset
from tests.crash.killer import Killer, Victim
from tests.crash.test_usage_stream import DELIVERY_SECONDS, PACE_SECONDS, SETTINGS
from tests.feature_usage.interactions import interaction, new_endpoint, rows_of
from tests.ledger.calls import PRICE
from tests.run.command import Command
from tests.serving import connected, new_key, usage_event

USES = 2_000
"""Each an event that bills it and an interaction under the same key, one after the other."""
USERS = 5
FRAME_EVENTS = 100


async def deliver(stream: UsageStream, events: list[StreamEvent]) -> None:
    for start in range(0, len(events), FRAME_EVENTS):
        await stream.send_many(events[start : start + FRAME_EVENTS])
        await asyncio.sleep(PACE_SECONDS)
    await stream.flush()


async def test_each_interaction_is_kept_once(
    server: Command, rng: random.Random, rounds: int
) -> None:
    target, key, writer_id = server.ready["grpc"], server.ready["api_key"], new_key()
    async with connected(target, key) as served:
        endpoint = (await new_endpoint(served)).value
        users = [await served.new_wallet(USES * PRICE) for _ in range(USERS)]
    uses = [(rng.choice(users), new_key()) for _ in range(USES)]
    events: list[StreamEvent] = []
    for user_id, usage_key in uses:
        events.append(usage_event(user_id, usage_key=usage_key))
        events.append(interaction(user_id, endpoint, usage_key=usage_key))
    killer = Killer(server, rng, list(Victim))
    async with (
        asyncio.timeout(DELIVERY_SECONDS + 20 * rounds),
        ZaazClient(target, key) as client,
        client.usage_stream(writer_id, settings=SETTINGS) as stream,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(killer.run(lambda: stream.acknowledged_offset, len(events), rounds))
        tasks.create_task(deliver(stream, events))

    assert killer.struck == rounds
    assert stream.counters.refused == 0
    async with connected(target, key) as served:
        assert await next_offset(served, writer_id) == len(events)
        for user_id in users:
            mine = sorted(usage_key for user, usage_key in uses if user == user_id)
            kept = await rows_of(served, user_id)
            assert sorted(row.usage_key for row in kept) == mine
            wallet = await served.wallet(user_id)
            assert wallet.credits_micros == (USES - len(mine)) * PRICE
            await served.assert_sound(user_id)
