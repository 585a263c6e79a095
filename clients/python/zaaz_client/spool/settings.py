"""Where a spool is, how large it may get, and what happens then."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from os import PathLike
from typing import Final

from zaaz_client.spool.errors import SpoolFull

MIN_SPOOL_BYTES: Final = 1024 * 1024
"""Less could not hold a few of the largest events."""


class WhenFull(Enum):
    """What becomes of an event while the spool is full or its disk refuses to be written."""

    WAIT = "wait"
    """send() returns once the event is safe: on disk again, or acknowledged by the server."""
    RAISE = "raise"
    """send() raises SpoolFull and has not taken the event."""
    MEMORY = "memory"
    """send() takes the event into memory, as without a spool: it would die with the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """A directory for what the server has not acknowledged. ValueError for what cannot work."""

    directory: str | PathLike[str]
    """Made if need be, for this spool alone. One stream has it at a time."""
    max_bytes: int = 256 * 1024 * 1024
    """What its files may take."""
    when_full: WhenFull = WhenFull.WAIT
    """What to do when they take so much, or the disk has no room or is broken."""
    linger_seconds: float = 0.002
    """How long an event may wait for others to share its fsync."""
    retry_seconds: float = 1.0
    """How often a disk that refused is tried again."""
    on_full: Callable[[SpoolFull], None] | None = None
    """Told once each time it begins to refuse. It must not block; what it raises is logged."""

    def __post_init__(self) -> None:
        if self.max_bytes < MIN_SPOOL_BYTES:
            raise ValueError(f"max_bytes must be at least {MIN_SPOOL_BYTES:,}")
        if self.linger_seconds < 0:
            raise ValueError("linger_seconds must be 0 or more")
        if self.retry_seconds <= 0:
            raise ValueError("retry_seconds must be more than 0")
