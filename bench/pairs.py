"""The method: a side and its baseline in turns, and the median of their ratios.

Other work on the machine slows both sides of a pair, so a ratio holds where a
rate does not. Every other pair begins with the baseline, so that what drifts (a
collection that grows, a processor that warms) favours neither side. Nothing
here asserts on a clock.
"""

import gc
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

from bench.machine import cpu_seconds

Run = Callable[[], Awaitable[list[float]]]
"""Does the work that was prepared; the latency of each call, in seconds."""


class Side(Protocol):
    """One of the two things that are compared."""

    async def prepare(self, operations: int) -> Run:
        """Everything that is not measured."""


async def _nothing() -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Sides:
    """What is compared, the operations of one run of each, and processes besides the server's.

    `besides` is asked once all pairs are taken, for what is to be told with the ratio.
    """

    ours: Side
    baseline: Side
    operations: tuple[int, int]
    pids: dict[str, int] = field(default_factory=dict)
    besides: Callable[[], Awaitable[dict[str, Any]]] = _nothing


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured run. `cpu`: seconds of the processors by role, the idle ones included."""

    operations: int
    seconds: float
    latencies: list[float]
    cpu: Mapping[str, float]

    @property
    def per_second(self) -> float:
        """Operations done in a second."""
        return self.operations / self.seconds

    def summary(self) -> dict[str, Any]:
        """Rate, latency and costs."""
        ranked = sorted(self.latencies)
        return {
            "per_second": round(self.per_second),
            "p50_ms": milliseconds(ranked, 50),
            "p99_ms": milliseconds(ranked, 99),
            "cpu_micros": {
                role: round(seconds * 1e6 / self.operations, 1)
                for role, seconds in self.cpu.items()
            },
        }


@dataclass(frozen=True, slots=True)
class Pair:
    """Both sides, one after the other, in either order."""

    ours: Sample
    baseline: Sample

    @property
    def ratio(self) -> float:
        """Above 1: ours is the faster."""
        return self.ours.per_second / self.baseline.per_second


async def take_pairs(
    sides: Sides, pairs: int, pids: Mapping[str, int], tell: Callable[[str], None]
) -> list[Pair]:
    """So many pairs, after one that only warms up; odd ones begin with the baseline."""
    taken = []
    for number in range(pairs + 1):
        pair = await _take_pair(sides, pids, baseline_first=number % 2 == 1)
        tell(
            f"{f'pair {number}/{pairs}' if number else 'warm-up'}: {pair.ours.per_second:,.0f}/s"
            f" over {pair.baseline.per_second:,.0f}/s = {pair.ratio:.3f}"
        )
        if number:
            taken.append(pair)
    return taken


async def _take_pair(sides: Sides, pids: Mapping[str, int], *, baseline_first: bool) -> Pair:
    if baseline_first:
        baseline = await _take(sides.baseline, sides.operations[1], pids)
        return Pair(await _take(sides.ours, sides.operations[0], pids), baseline)
    ours = await _take(sides.ours, sides.operations[0], pids)
    return Pair(ours, await _take(sides.baseline, sides.operations[1], pids))


async def _take(side: Side, operations: int, pids: Mapping[str, int]) -> Sample:
    run = await side.prepare(operations)
    # What was prepared is not garbage: the collector is not to walk it while we measure.
    gc.collect()
    gc.freeze()
    try:
        before = cpu_seconds(pids)
        started = time.perf_counter()
        latencies = await run()
        seconds = time.perf_counter() - started
        after = cpu_seconds(pids)
    finally:
        gc.unfreeze()
    # The kernel counts in ticks: what is left for others may come out below nothing.
    cpu = {role: max(0.0, after[role] - before[role]) for role in after}
    return Sample(operations, seconds, latencies, cpu)


def summarize(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The median ratio with its spread (lowest, highest), and each side's median run."""
    ours = _median_run([pair.ours for pair in pairs]).summary()
    baseline = _median_run([pair.baseline for pair in pairs]).summary()
    return {
        **spread_of([pair.ratio for pair in pairs]),
        "ours_per_second": ours.pop("per_second"),
        "baseline_per_second": baseline.pop("per_second"),
        "ours": ours,
        "baseline": baseline,
    }


def spread_of(ratios: Sequence[float]) -> dict[str, Any]:
    """The median of ratios that were taken one by one, the lowest and the highest, and how many."""
    return {
        "ratio": round(median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "runs": len(ratios),
    }


def _median_run(samples: Sequence[Sample]) -> Sample:
    """The one whose rate is the median; of an even number, the lower of the middle two."""
    return sorted(samples, key=lambda sample: sample.per_second)[(len(samples) - 1) // 2]


def milliseconds(ranked: Sequence[float], percentile: int) -> float:
    """That percentile of seconds which are in order."""
    place = min(len(ranked) - 1, len(ranked) * percentile // 100)
    return round(ranked[place] * 1_000, 2)
