"""Usage through the SDK's stream while everything dies: each event is billed exactly once."""

import asyncio
import random
from collections.abc import Iterator

import pytest
from zaaz.credits.v1 import usage_service_pb2 as pb
from zaaz_client import UsageStream, UsageStreamSettings, ZaazClient

from tests.crash.books import assert_billed_exactly_once, fund, next_offset
from tests.crash.killer import Killer, Victim
from tests.crash.trace import Workload, make_workload
from tests.run.command import Command
from tests.serving import connected, new_key

EVENTS = 5_000
USERS = 20
FRAME_EVENTS = (50, 200)
PACE_SECONDS = 0.02
"""Between frames: traffic that lasts long enough to be struck."""
DELIVERY_SECONDS = 120.0

SETTINGS = UsageStreamSettings(
    # Small, so that frames stay small when the server comes back.
    max_buffered_events=800,
    linger_seconds=0.002,
    max_backoff_seconds=0.5,
    stall_timeout_seconds=60,
)


def frames(workload: Workload, rng: random.Random) -> Iterator[tuple[pb.UsageEvent, ...]]:
    """The events in pieces of random size."""
    place = 0
    while place < len(workload.events):
        size = rng.randint(*FRAME_EVENTS)
        yield workload.events[place : place + size]
        place += size


async def deliver(stream: UsageStream, workload: Workload, rng: random.Random) -> None:
    for frame in frames(workload, rng):
        await stream.send_many(frame)
        await asyncio.sleep(PACE_SECONDS)
    await stream.flush()


@pytest.mark.parametrize("victim", list(Victim))
async def test_each_event_is_billed_once(
    server: Command, rng: random.Random, rounds: int, victim: Victim
) -> None:
    workload = make_workload(EVENTS, USERS, rng)
    target, key, writer_id = server.ready["grpc"], server.ready["api_key"], new_key()
    async with connected(target, key) as served:
        funds = await fund(served, workload)
    killer = Killer(server, rng, [victim])
    async with (
        asyncio.timeout(DELIVERY_SECONDS + 20 * rounds),
        ZaazClient(target, key) as client,
        client.usage_stream(writer_id, settings=SETTINGS) as stream,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(killer.run(lambda: stream.acknowledged_offset, EVENTS, rounds))
        tasks.create_task(deliver(stream, workload, rng))

    assert killer.struck == rounds
    assert stream.counters.refused == 0
    async with connected(target, key) as served:
        await assert_billed_exactly_once(served, workload, funds)
        assert await next_offset(served, writer_id) == EVENTS
