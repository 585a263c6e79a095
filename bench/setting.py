"""What a figure or a measure is taken on: a fresh server, and how much of it is asked."""

import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from bench.funding import fund_wallets
from bench.pairs import Sides
from bench.processes import Served, serving
from bench.wallets import FUNDS_MICROS, make_wallets

MANY_WALLETS = 10_000
"""From here on RPCs would take most of a figure's time."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of something: for a look in minutes, and for the figures of record."""

    quick: int
    full: int


NO_SIZE = Size(0, 0)
"""Of what says no number that depends on the scale."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a figure is taken. `scale` multiplies its operations further, to see that it runs."""

    pairs: int
    scale: float = 1.0
    full: bool = False
    recording: Path | None = None

    def size(self, size: Size) -> int:
        """So much, whatever the factor."""
        return size.full if self.full else size.quick

    def operations(self, size: Size) -> int:
        """So many, to scale."""
        return max(1, round(self.size(size) * self.scale))

    @property
    def told(self) -> str:
        """The scale in words."""
        name = "full" if self.full else "quick"
        return name if self.scale == 1 else f"{name} x {self.scale:g}"


@dataclass(slots=True)
class Bench:
    """A fresh server, a channel to it, and a directory for whatever else it takes."""

    served: Served
    channel: grpc.aio.Channel
    directory: Path
    plan: Plan
    wallets_seconds: float = 0.0

    async def wallets(self, count: int) -> list[str]:
        """The users of new wallets."""
        started = time.perf_counter()
        if count < MANY_WALLETS:
            users = await make_wallets(self.channel, self.served, count)
        else:
            users = await fund_wallets(self.served.mongo_url, count, FUNDS_MICROS)
        self.wallets_seconds = round(time.perf_counter() - started, 1)
        tell(f"{count:,} wallets made and funded in {self.wallets_seconds} s")
        return users


Open = Callable[[Bench], AbstractAsyncContextManager[Sides]]


@asynccontextmanager
async def bench_of(plan: Plan) -> AsyncIterator[Bench]:
    """A server on an empty data directory, which is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="zaaz-bench-") as directory:
        async with (
            serving(Path(directory)) as served,
            grpc.aio.insecure_channel(served.target) as channel,
        ):
            yield Bench(served, channel, Path(directory), plan)


def announce(name: str, what: str, size: Size, plan: Plan) -> str:
    """Says what is taken, and at which scale where that is not the full one; `what` in full."""
    said = what.format(size=plan.operations(size))
    tell(f"{name}: {said}")
    if size is not NO_SIZE and not plan.full:
        tell(f"{name}: at the {plan.told} scale; --full takes {size.full:,} instead")
    return said


def tell(progress: str) -> None:
    """A line for whoever watches."""
    print(f"bench: {progress}", file=sys.stderr, flush=True)
