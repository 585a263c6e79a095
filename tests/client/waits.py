"""Waits that are looked at and not sat through."""

import asyncio
import random
import time
from types import ModuleType
from typing import Any

import pytest
import zaaz_client.usage_session
from zaaz_client.usage_session import UsageSession

from tests.ledger.calls import soon


class StillClock:
    """Stands in for `time` and `asyncio` in a module: it moves when the module sleeps, or is told.

    Everything else of asyncio is as it is.
    """

    def __init__(self, now_seconds: float = 1_000.0) -> None:
        self.now_seconds = now_seconds
        self.sleeps: list[float] = []
        """Seconds, in order."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    def monotonic(self) -> float:
        return self.now_seconds

    async def sleep(self, delay_seconds: float) -> None:
        self.sleeps.append(delay_seconds)
        self.now_seconds += delay_seconds
        await asyncio.sleep(0)


def clocked(patch: pytest.MonkeyPatch, module: ModuleType) -> StillClock:
    """The module's clock and its sleep, from now on."""
    clock = StillClock()
    for name in ("time", "asyncio"):
        if hasattr(module, name):
            patch.setattr(module, name, clock)
    return clock


def without_jitter(patch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Every draw gives its upper bound; returned are the bounds, as they are drawn from."""
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return high

    patch.setattr(random, "uniform", uniform)
    return drawn


class Pauses:
    """What usage sessions wait for before their next frame, by a clock that stands still."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        # Past whatever the queue, which has the real clock, says that events wait since.
        self.clock = StillClock(time.monotonic() + 3_600)
        self._session: UsageSession | None = None
        self._latest: float | None = None
        self._changed: asyncio.Queue[float | None] = asyncio.Queue()
        patch.setattr(zaaz_client.usage_session, "time", self.clock)
        reckon = UsageSession._seconds_to_wait

        def reckoned(session: UsageSession) -> float | None:
            wait = reckon(session)
            if wait != self._latest:
                self._latest = wait
                self._changed.put_nowait(wait)
            self._session = session
            return wait

        patch.setattr(UsageSession, "_seconds_to_wait", reckoned)

    async def next(self) -> float:
        """Seconds until a frame may go out, when that is next reckoned; 0: it goes out."""
        wait = None
        while wait is None:
            wait = await soon(self._changed.get())
        return round(float(wait), 3)

    def end(self) -> None:
        """The pause is over."""
        assert self._latest
        assert self._session is not None
        self.clock.now_seconds += self._latest
        self._session._queue.work.set()
