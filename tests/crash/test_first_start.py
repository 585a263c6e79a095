"""A first start that is killed wherever it is: the next one finishes what it began."""

import asyncio
import random
from pathlib import Path

from tests.run.command import Command
from tests.serving import MODEL, connected, usage_event

FIRST_START_SECONDS = 2.0
"""About what a first start takes: the blows fall somewhere in it."""


async def test_killed_first_starts_leave_nothing_half_made(
    tmp_path: Path, rng: random.Random, rounds: int
) -> None:
    server = Command(tmp_path / "data", tmp_path / "stderr")
    try:
        for number in range(rounds + 1):
            # From nothing there to all but serving; the killed one's successor inherits the rest.
            least = FIRST_START_SECONDS * number / (rounds + 1)
            await server.spawn()
            await asyncio.sleep(least + rng.uniform(0, FIRST_START_SECONDS / (rounds + 1)))
            await server.kill_everything()
        ready = await server.start()
        async with connected(ready["grpc"], ready["api_key"]) as served:
            user_id = await served.new_wallet(1_000_000)
            (result,) = await served.record(usage_event(user_id, ai_model=MODEL))
            assert result.receipt.credits_micros == 540_000
            await served.assert_sound(user_id)
        assert (await server.stop()).code == 0
    finally:
        await server.clean_up()
