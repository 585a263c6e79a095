"""A partner's process with a spool, killed again and again, its server too: nothing is lost."""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from zaaz_client import spooled_events

from tests.crash.books import assert_billed_exactly_once, fund
from tests.crash.killer import MAX_DELAY_SECONDS, PROGRESS_SECONDS
from tests.crash.sender import DONE, write_events
from tests.crash.trace import Workload, make_workload
from tests.run.command import ROOT, Command
from tests.run.processes import until
from tests.serving import connected, new_key

EVENTS_A_ROUND = 1_300
MAX_EVENTS = 19_000
"""The trace has no more."""
USERS = 10
END_SECONDS = 120.0


class Sender:
    """`tests.crash.sender` as a process; `start` again goes on after what it said was taken."""

    def __init__(self, server: Command, place: Path, workload: Workload) -> None:
        self.taken = 0
        self.done = False
        self.directory = place / "spool"
        self._file = place / "events"
        self._log = place / "sender.log"
        self._server = server
        self._writer_id = new_key()
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        write_events(self._file, workload.events)

    async def start(self, seed: int) -> None:
        """Starts it, no more."""
        arguments = (self._server.ready["grpc"], self._writer_id, self.directory, self._file)
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.crash.sender",
                *map(str, (*arguments, self.taken, seed)),
                cwd=ROOT,
                env={**os.environ, "ZAAZ_API_KEY": self._server.ready["api_key"]},
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self._listening = asyncio.create_task(self._listen(self._process))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.done = line == DONE.encode()
            if not self.done and line.endswith(b"\n"):
                self.taken = int(line)

    def has_taken(self, events: int) -> bool:
        """Whether it has, or has ended, which it should not have."""
        assert self._process is not None
        assert self._process.returncode in (None, 0), self.words
        return self.taken >= events

    async def kill(self) -> None:
        """kill -9; then what it had said is known."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        await self.end()

    async def end(self) -> None:
        """Waits until it has ended."""
        if self._process is not None and self._listening is not None:
            await asyncio.wait_for(self._process.wait(), END_SECONDS)
            await self._listening

    @property
    def words(self) -> str:
        """What it has logged."""
        return self._log.read_text()


@pytest.fixture
def workload(rng: random.Random, rounds: int) -> Workload:
    return make_workload(min(EVENTS_A_ROUND * rounds, MAX_EVENTS), USERS, rng)


@pytest.fixture
async def sender(server: Command, tmp_path: Path, workload: Workload) -> AsyncIterator[Sender]:
    sender = Sender(server, tmp_path, workload)
    yield sender
    await sender.kill()


async def test_each_event_that_was_taken_is_billed_once(
    server: Command, sender: Sender, workload: Workload, rng: random.Random, rounds: int
) -> None:
    async with connected(server.ready["grpc"], server.ready["api_key"]) as served:
        funds = await fund(served, workload)
    await sender.start(rng.randrange(1_000))
    events = len(workload.events)
    for number in range(rounds):
        point = min(sender.taken + rng.randint(1, EVENTS_A_ROUND // 2), events)
        await until(partial(sender.has_taken, point), PROGRESS_SECONDS)
        await asyncio.sleep(rng.uniform(0, MAX_DELAY_SECONDS))
        both = number % 2 == 1
        if both:  # the next process finds no server, and takes events all the same
            await server.kill_everything()
            await asyncio.sleep(rng.uniform(0, MAX_DELAY_SECONDS))
        await sender.kill()
        sys.stdout.write(f"kill -9 at {sender.taken}, and of the server: {both}\n")
        await sender.start(rng.randrange(1_000))
        if both:
            point = min(sender.taken + 1, events)
            await until(partial(sender.has_taken, point), PROGRESS_SECONDS)
            await server.start()
    await sender.end()
    assert sender.done, sender.words
    assert list(spooled_events(sender.directory)) == []
    async with connected(server.ready["grpc"], server.ready["api_key"]) as served:
        await assert_billed_exactly_once(served, workload, funds)
