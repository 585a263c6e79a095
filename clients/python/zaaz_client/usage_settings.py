"""The knobs of a usage stream."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageStreamSettings:
    """Bounds and times of a usage stream. ValueError for what cannot work."""

    max_buffered_events: int = 20_000
    """send() waits while so many events are not acknowledged."""
    max_buffered_bytes: int = 16 * 1024 * 1024
    """And while their encodings take so many bytes."""
    linger_seconds: float = 0.01
    """How long an event may wait for others to fill its frame."""
    open_timeout_seconds: float = 30.0
    """`async with` raises when the stream cannot be opened at first for so long."""
    stall_timeout_seconds: float | None = None
    """Stalled is raised when events wait and none was acknowledged for so long.

    None: never. The buffer is all that holds those events, so giving up on it
    is the caller's decision, not a default's.
    """
    answer_timeout_seconds: float = 60.0
    """The stream is opened again when a frame has no answer for so long."""
    min_backoff_seconds: float = 0.1
    """Bound of the first wait before the stream is opened again; doubles each time."""
    max_backoff_seconds: float = 5.0
    """Where it stops doubling."""
    close_timeout_seconds: float = 5.0
    """How long leaving `async with` by an exception goes on delivering events."""

    def __post_init__(self) -> None:
        for name in ("max_buffered_events", "max_buffered_bytes"):
            _require(getattr(self, name) >= 1, name, "at least 1")
        _require(self.linger_seconds >= 0, "linger_seconds", "0 or more")
        for name in ("open_timeout_seconds", "answer_timeout_seconds", "min_backoff_seconds"):
            _require(getattr(self, name) > 0, name, "more than 0")
        stall = self.stall_timeout_seconds
        _require(stall is None or stall > 0, "stall_timeout_seconds", "more than 0, or None")
        enough = self.max_backoff_seconds >= self.min_backoff_seconds
        _require(enough, "max_backoff_seconds", "at least min_backoff_seconds")


def _require(holds: bool, name: str, rule: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {rule}")


DEFAULT_SETTINGS: Final = UsageStreamSettings()
