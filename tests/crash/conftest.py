"""A server to be killed, and chance that can be had again.

CRASH_SEED repeats a run (each test prints its seed); CRASH_ROUNDS, 3 by
default, is how many blows each test gives: `CRASH_ROUNDS=50 pytest tests/crash`
is a soak of half an hour.
"""

import os
import random
import sys
from collections.abc import AsyncIterator

import pytest

from tests.run.command import Command, free_port


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
