"""What the service is for: replay real traffic, kill everything with -9, let it go on.

Every event is billed exactly once, to the micro-credit, and the command says so.
CRASH_FULL=1 replays the whole trace instead of its beginning.
"""

import asyncio
import csv
import os
import random
import sys
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path

import pytest
from zaaz.wallet.v1.wallet_service_pb2 import ListWalletsRequest

from tests.crash.killer import PROGRESS_SECONDS
from tests.crash.replay import Replay
from tests.crash.trace import FILE, prices
from tests.run.command import Command, Ended, free_port
from tests.run.processes import mongods
from tests.serving import connected

USERS = 20
TRACE_EVENTS = 19_366
EVENTS = TRACE_EVENTS if os.environ.get("CRASH_FULL") else 6_000
RATE = 3_000
"""Events a second: the run lasts long enough to be struck in its middle."""
FUNDS = USERS * 10**12
"""What the command gives its wallets by default."""
BLOWS = 2


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[Command]:
    """A server and data directory of the test's own, as a clone's first `make run` has."""
    address = f"127.0.0.1:{free_port()}"
    server = Command(tmp_path / "data", tmp_path / "stderr", grpc_address=address)
    await server.start()
    yield server
    await server.clean_up()


@pytest.fixture
async def replay(own_server: Command, tmp_path: Path) -> AsyncIterator[Replay]:
    run = Replay(own_server, tmp_path / "replay", users=USERS, events=EVENTS, rate=RATE)
    yield run
    await run.kill()


async def billed_events(server: Command, at_least: int) -> int:
    """How many events are billed, once so many are: entries but each wallet's grant."""
    target, key = server.ready["grpc"], server.ready["api_key"]
    async with asyncio.timeout(PROGRESS_SECONDS), connected(target, key) as served:
        while True:
            page = await served.wallets.ListWallets(ListWalletsRequest(page_size=USERS))
            billed = sum(max(0, int(wallet.sequence) - 1) for wallet in page.wallets)
            if billed >= at_least:
                sys.stdout.write(f"{billed} of {EVENTS} billed\n")
                return billed


def expected_charge() -> int:
    """What the trace's first events cost, worked out here."""
    price, _ = prices()
    with FILE.open(newline="") as file:
        rows = list(islice(csv.DictReader(file), EVENTS))
    return sum(price.charge(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in rows)


def assert_adds_up(over: Ended) -> None:
    assert over.code == 0, over.stderr
    (report,) = over.lines
    charge = expected_charge()
    assert report["ok"] is True
    assert all(report["checks"].values())
    assert report["differences"] == []
    assert report["wallets_sound"] == USERS
    assert report["events"] == dict.fromkeys(("sent", "acknowledged", "billed", "usages"), EVENTS)
    assert report["credits_micros"] == {
        "granted": FUNDS,
        "charged": charge,
        "decreased": charge,
        "shortfall": 0,
        "balance": FUNDS - charge,
    }


def points(rng: random.Random) -> list[int]:
    return sorted(rng.sample(range(1, EVENTS * 8 // 10), BLOWS))


async def strike(server: Command) -> None:
    """kill -9 for server and mongod, and a new start."""
    await server.kill_everything()
    assert mongods(server.data_dir) == []
    await server.start()


async def test_server_and_database_killed_in_the_middle(
    own_server: Command, replay: Replay, rng: random.Random
) -> None:
    await replay.start()
    struck_at = await billed_events(own_server, points(rng)[0])
    assert struck_at < EVENTS
    await strike(own_server)
    # Once more as soon as it goes on, which it does at full speed: it is behind its rate.
    await billed_events(own_server, struck_at + 1)
    await strike(own_server)
    over = await replay.end()
    assert_adds_up(over)
    assert over.lines[0]["this_process"]["reopened"] >= 1


async def test_everything_killed_and_the_run_continued(
    own_server: Command, replay: Replay, rng: random.Random
) -> None:
    for point in points(rng):
        await replay.start()
        assert await billed_events(own_server, point) < EVENTS
        await replay.kill()
        await strike(own_server)
    await replay.start()
    over = await replay.end()
    assert_adds_up(over)
    assert over.lines[0]["this_process"]["resumed_at"] > 0


async def test_replay_waits_while_the_server_is_away(
    own_server: Command, replay: Replay, rng: random.Random
) -> None:
    """The server dies without its mongod, in the middle of funding the wallets or soon after."""
    await replay.start()
    await own_server.kill()
    await own_server.start()
    assert_adds_up(await replay.end())
