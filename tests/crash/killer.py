"""Kills what serves, again and again, at points of the work's own progress."""

import asyncio
import random
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial

from tests.run.command import Command
from tests.run.processes import until

PROGRESS_SECONDS = 60.0
"""Bound on the work's way from one point to the next, a restart included."""

MAX_DELAY_SECONDS = 0.03
"""A blow falls so long after its point at most: anywhere in a commit, or between two."""


class Victim(StrEnum):
    """Who gets kill -9."""

    SERVER = "server"
    MONGOD = "mongod"
    EVERYTHING = "everything"


class Killer:
    """Strikes `server` once at each point, in order, and starts again what it killed."""

    def __init__(self, server: Command, rng: random.Random, victims: Sequence[Victim]) -> None:
        self._server = server
        self._rng = rng
        self._victims = victims
        self.struck = 0

    async def run(self, progress: Callable[[], int], total: int, rounds: int) -> None:
        """`rounds` blows while `progress` goes up to `total`."""
        # Not at the very end: every blow is to find work in flight.
        points = sorted(self._rng.sample(range(1, total * 9 // 10), rounds))
        for number, point in enumerate(points):
            await until(partial(_reached, progress, point), PROGRESS_SECONDS)
            await asyncio.sleep(self._rng.uniform(0, MAX_DELAY_SECONDS))
            victim = self._victims[number % len(self._victims)]
            sys.stdout.write(f"kill -9 {victim} at {progress()} of {total}\n")
            await self._strike(victim)
            self.struck += 1

    async def _strike(self, victim: Victim) -> None:
        if victim is Victim.MONGOD:
            # It may be on its way up from the last blow.
            await until(self._server.kill_mongod, PROGRESS_SECONDS)
            return
        if victim is Victim.SERVER:
            await self._server.kill()
        else:
            await self._server.kill_everything()
        await self._server.start()


def _reached(progress: Callable[[], int], point: int) -> bool:
    return progress() >= point
