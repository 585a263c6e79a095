"""A real database outlives the servers on it: what they had open there is left behind.

A transaction that nobody will end keeps its wallets locked until MongoDB itself
aborts it (transactionLifetimeLimitSeconds: 20 in the embedded mongod, 60 by
default elsewhere). Nothing is lost or doubled by it; whoever needs those wallets
waits. So each blow may cost half a minute, and there are fewer of them here.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from zaaz_client import ZaazClient

from tests.conftest import MongoClient
from tests.crash.books import assert_billed_exactly_once, fund, next_offset
from tests.crash.killer import Killer, Victim
from tests.crash.test_usage_stream import SETTINGS, deliver
from tests.crash.trace import make_workload
from tests.run.command import Command, free_port
from tests.serving import SECRET, connected, make_key, new_key

EVENTS = 4_000
USERS = 10
DELIVERY_SECONDS = 120.0


@pytest.fixture
async def own_server(
    mongo_url: str, mongo_client: MongoClient, tmp_path: Path
) -> AsyncIterator[tuple[Command, str]]:
    """A server on a database that stays, and a key for it."""
    name = f"test_{uuid4().hex[:16]}"
    server = Command(
        tmp_path / "data",
        tmp_path / "stderr",
        grpc_address=f"127.0.0.1:{free_port()}",
        mongo_url=mongo_url,
        mongo_database=name,
        secret=SECRET,
    )
    await server.start()
    yield server, await make_key(mongo_url, name, "tests", ["admin"])
    await server.clean_up()
    await mongo_client.drop_database(name)


async def test_server_is_killed_and_its_database_is_not(
    own_server: tuple[Command, str], rng: random.Random, rounds: int
) -> None:
    server, key = own_server
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
