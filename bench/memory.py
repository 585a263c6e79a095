"""What the server has resident while it is streamed to, without a pause and by one writer."""

from collections.abc import Sequence
from statistics import linear_regression
from typing import Any

from bench.consume import SPREAD_WALLETS
from bench.machine import Meter, resident_kibibytes
from bench.setting import Bench, Size
from bench.usage import Stream

EVENTS = Size(300_000, 1_000_000)
SAMPLES = 20
WARM_SAMPLES = 4
"""Of the first fifth: caches fill, and the allocator takes what it will need."""
PER_EVENTS = 100_000


async def memory(bench: Bench) -> dict[str, Any]:
    """MiB that the server has more for each PER_EVENTS events, by least squares."""
    stream = Stream(bench.channel, bench.served, await bench.wallets(SPREAD_WALLETS))
    events = bench.plan.operations(EVENTS)
    meter = Meter(bench.served.pids)
    samples = _Samples(bench.served.pids["server"], max(1, events // SAMPLES))
    await stream.flow(events, samples.hear)
    return {
        "value": samples.slope(),
        "unit": f"MiB per {PER_EVENTS:,} events",
        "events": events,
        "resident_mib": [round(each, 1) for each in samples.mebibytes],
        **meter.read(),
    }


class _Samples:
    """Resident memory at the start, and again whenever `every` more events have been billed."""

    def __init__(self, pid: int, every: int) -> None:
        self._pid = pid
        self._every = every
        self._events: list[int] = []
        self.mebibytes: list[float] = []
        self.hear(0)

    def hear(self, billed: int) -> None:
        if billed >= len(self._events) * self._every:
            self._events.append(billed)
            self.mebibytes.append(resident_kibibytes(self._pid) / 1_024)

    def slope(self) -> float:
        events: Sequence[int] = self._events[WARM_SAMPLES:]
        slope, _ = linear_regression(events, self.mebibytes[WARM_SAMPLES:])
        return round(slope * PER_EVENTS, 2)
