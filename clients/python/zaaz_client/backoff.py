"""How long to wait before trying again."""

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

MAX_RETRY_DELAY_SECONDS: Final = 300.0
"""A server that asks for more is tried again after this."""
_MAX_DOUBLINGS: Final = 30


@dataclass(slots=True)
class Backoff:
    """Exponential with full jitter: between nothing and a bound that doubles with each try."""

    min_seconds: float = 0.1
    max_seconds: float = 5.0
    tries: int = 0

    def next_delay(self, asked: timedelta | None = None) -> float:
        """Seconds to wait before the next try, and no less than the server `asked` for."""
        bound = min(self.max_seconds, self.min_seconds * 2.0 ** min(self.tries, _MAX_DOUBLINGS))
        self.tries += 1
        least = seconds(asked)
        return least + random.uniform(0, bound)

    def reset(self) -> None:
        """Something succeeded."""
        self.tries = 0


def seconds(asked: timedelta | None) -> float:
    """A server's delay, within 0 and MAX_RETRY_DELAY_SECONDS."""
    if asked is None:
        return 0.0
    return min(max(asked.total_seconds(), 0.0), MAX_RETRY_DELAY_SECONDS)
