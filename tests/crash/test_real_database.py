"""A real database outlives the servers on it: what they had open there is left behind.

A transaction that nobody will end keeps its wallets locked until MongoDB itself
aborts it (transactionLifetimeLimitSeconds: 20 in the embedded mongod, 60 by
default elsewhere). Nothing is lost or doubled by it; whoever needs those wallets
waits. So each blow may cost half a minute, and there are fewer of them here.
"""

import asyncio
import random

from zaaz_client import ZaazClient

from tests.crash.books import assert_billed_exactly_once, fund, next_offset
from tests.crash.conftest import OwnServer
from tests.crash.killer import Killer, Victim
from tests.crash.test_usage_stream import SETTINGS, deliver
from tests.crash.trace import make_workload
from tests.serving import connected, new_key

EVENTS = 4_000
USERS = 10
DELIVERY_SECONDS = 120.0


async def test_server_is_killed_and_its_database_is_not(
    own_server: OwnServer, rng: random.Random, rounds: int
) -> None:
    server, key, _ = own_server
    rounds = max(1, rounds // 3)
    target, writer_id = server.ready["grpc"], new_key()
    workload = make_workload(EVENTS, USERS, rng)
    async with connected(target, key) as served:
        funds = await fund(served, workload)
    killer = Killer(server, rng, [Victim.SERVER])
    async with (
        asyncio.timeout(DELIVERY_SECONDS * rounds),
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
