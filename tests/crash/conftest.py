"""A server to be killed, and chance that can be had again.

CRASH_SEED repeats a run (each test prints its seed); CRASH_ROUNDS, 3 by
default, is how many blows each test gives: `CRASH_ROUNDS=50 pytest tests/crash`
is a soak of half an hour.
"""

import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest

from tests.conftest import MongoClient
from tests.run.command import Command, free_port
from tests.serving import SECRET, make_key


@pytest.fixture
def rounds() -> int:
    """How many blows a test gives."""
    return int(os.environ.get("CRASH_ROUNDS", "3"))


@pytest.fixture
def rng() -> random.Random:
    """Chance; its seed is printed, and taken from CRASH_SEED."""
    seed = int(os.environ.get("CRASH_SEED") or random.SystemRandom().randrange(1_000_000))
    sys.stdout.write(f"CRASH_SEED={seed}\n")
    return random.Random(seed)


@pytest.fixture(scope="session")
async def embedded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Command]:
    """One data directory for all tests: each makes users of its own, and finds its history."""
    place = tmp_path_factory.mktemp("crash")
    server = Command(
        place / "data", place / "stderr", grpc_address=f"127.0.0.1:{free_port()}", log_level="INFO"
    )
    yield server
    await server.clean_up()


@pytest.fixture
async def server(embedded: Command) -> Command:
    """The same, serving."""
    if not embedded.is_running:
        await embedded.start()
    return embedded


class OwnServer(NamedTuple):
    """A server on a database that outlives it, and a key for it."""

    command: Command
    key: str
    database: str


@pytest.fixture
async def own_server(
    mongo_url: str, mongo_client: MongoClient, tmp_path: Path
) -> AsyncIterator[OwnServer]:
    """One that serves."""
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
    yield OwnServer(server, await make_key(mongo_url, name, "tests", ["admin"]), name)
    await server.clean_up()
    await mongo_client.drop_database(name)
