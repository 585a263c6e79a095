"""Time: milliseconds since the epoch, UTC, wherever the house keeps it."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]
"""Now, in milliseconds since the epoch."""

DAY_MS = 86_400_000


def system_clock() -> int:
    """The machine's time."""
    return time.time_ns() // 1_000_000


def iso(time_ms: int) -> str:
    """RFC 3339 with milliseconds, for people and metadata."""
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
