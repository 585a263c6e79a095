"""The generic cell rate algorithm: one number for each key, no windows, no timers.

A key's number is its theoretical arrival time (TAT): when it would have used up
all it has asked for. A request is taken unless that lies too far ahead of now.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

BURST_SECONDS = 4
"""How many seconds' worth of requests may come at once."""

MAX_KEYS = 32_768
"""Keys that are remembered; the one unseen for longest goes first (about 6 MB)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one request."""

    taken: bool
    remaining: int
    """Requests that would still be taken right now."""
    reset_seconds: int
    """Until all of the burst is there again."""
    retry_after_seconds: int
    """Until the next one would be taken; 0 when this one was."""


class Limiter:
    """So many a second for each key in the long run, and bursts of BURST_SECONDS' worth."""

    def __init__(
        self, per_second: float, clock: Callable[[], float], max_keys: int = MAX_KEYS
    ) -> None:
        self._interval = 1 / per_second
        self._clock = clock
        self._max_keys = max_keys
        self._arrivals: OrderedDict[bytes, float] = OrderedDict()
        self.burst = max(1, round(per_second * BURST_SECONDS))

    def __len__(self) -> int:
        return len(self._arrivals)

    def take(self, key: bytes) -> Decision:
        """Counts one request of `key`, if there is room for it."""
        now = self._clock()
        arrival = max(now, self._arrivals.get(key, now)) + self._interval
        ahead = arrival - now
        # A thousandth of an interval forgives the clock's rounding.
        over = ahead - (self.burst + 0.001) * self._interval
        if over > 0:
            self._arrivals.move_to_end(key)
            used = ahead - self._interval
            return Decision(False, 0, math.ceil(used), max(1, math.ceil(over)))
        self._arrivals[key] = arrival
        self._arrivals.move_to_end(key)
        if len(self._arrivals) > self._max_keys:
            self._arrivals.popitem(last=False)
        remaining = max(0, self.burst - math.ceil(ahead / self._interval - 0.001))
        return Decision(True, remaining, math.ceil(ahead), 0)
