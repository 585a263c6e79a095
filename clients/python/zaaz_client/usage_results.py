"""What became of a usage stream's events."""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from zaaz.credits.v1.usage_service_pb2 import UsageEventError, UsageFrameAck

from zaaz_client.errors import ZaazError
from zaaz_client.status import from_status
from zaaz_client.usage_queue import Frame
from zaaz_client.wire import StreamEvent, decode_event

MAX_REJECTED_EVENTS: Final = 1_000
"""So many refused events are remembered; older ones only count."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RejectedEvent:
    """An event that the server refused for good."""

    offset: int
    event: StreamEvent
    error: ZaazError
    kept: bool
    """ListRejectedUsage has it, from where it can be replayed."""


RejectedHandler = Callable[[RejectedEvent], None]
"""Told of each refused event. It must not block; what it raises is logged."""


@dataclass(slots=True)
class UsageCounters:
    """Events, since the stream object was made. These add up:

    acknowledged = billed + duplicates + logged + refused + unreported
    """

    sent: int = 0
    """Taken by send()."""
    acknowledged: int = 0
    """Durable on the server, whatever became of them."""
    billed: int = 0
    duplicates: int = 0
    """Billed before under the same usage_key."""
    logged: int = 0
    """Interactions that are kept, now or since an earlier time."""
    refused: int = 0
    unreported: int = 0
    """Durable, but the answer that said what became of them was lost with a connection."""
    reopened: int = 0
    """How often the stream had to be opened again."""
    spool_full: int = 0
    """How often the spool, or its disk, began to refuse events."""
    not_durable: int = 0
    """Taken into memory alone because the spool refused them (WhenFull.MEMORY)."""


class UsageResults:
    """Counts, and the refused events themselves."""

    def __init__(self, on_rejected: RejectedHandler | None) -> None:
        self.counters = UsageCounters()
        self.rejected: deque[RejectedEvent] = deque(maxlen=MAX_REJECTED_EVENTS)
        self._on_rejected = on_rejected

    def acknowledged(self, frame: Frame, ack: UsageFrameAck) -> None:
        """A frame was answered."""
        events = len(frame.chunks)
        told = ack.billed_events + ack.duplicate_events + ack.logged_events + len(ack.errors)
        counters = self.counters
        counters.acknowledged += events
        counters.billed += ack.billed_events
        counters.duplicates += ack.duplicate_events
        counters.logged += ack.logged_events
        counters.refused += len(ack.errors)
        counters.unreported += max(0, events - told)
        self._reject(frame, ack.errors)

    def found(self, events: int) -> None:
        """The server had these already when the stream was opened again."""
        self.counters.acknowledged += events
        self.counters.unreported += events

    def _reject(self, frame: Frame, errors: Iterable[UsageEventError]) -> None:
        for error in errors:
            if not 0 <= error.index < len(frame.chunks):
                _log.error("the server refused event %d of a shorter frame", error.index)
                continue
            place = frame.place(error.index)
            rejected = RejectedEvent(
                offset=frame.offset + place,
                event=decode_event(frame.chunks[place]),
                error=from_status(error.error),
                kept=error.kept,
            )
            self.rejected.append(rejected)
            self._tell(rejected)

    def _tell(self, rejected: RejectedEvent) -> None:
        if self._on_rejected is None:
            return
        try:
            self._on_rejected(rejected)
        except Exception:  # noqa: BLE001 - whatever it raises must not end the stream
            _log.exception("on_rejected failed for the event at offset %d", rejected.offset)
