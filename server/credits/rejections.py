"""Rejected usage: how much of it is kept, and what becomes of it."""

from server.kernel.clock import Clock
from server.ledger.frames import FrameResult, Refused
from server.ledger.reader import LedgerReader

MAX_KEPT_PER_CLIENT = 100_000
"""Rejected events that are kept for one client; more are only reported."""

RECOUNT_MS = 60_000
MAX_COUNTED_CLIENTS = 10_000


class RejectionRoom:
    """Knows whether a client's list of rejected events has room.

    Counts the rows once a minute and what is added in between, so the bound is
    exact to within a minute of other processes' work.
    """

    def __init__(self, reader: LedgerReader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock
        self._counts: dict[str, tuple[int, int]] = {}

    async def is_left(self, client_id: str) -> bool:
        """Whether another rejected event of the client would be kept."""
        count, counted_ms = self._counts.get(client_id, (0, 0))
        if self._clock() - counted_ms > RECOUNT_MS:
            counted_ms = self._clock()
            count = await self._reader.count_rejected(client_id, MAX_KEPT_PER_CLIENT)
            if len(self._counts) >= MAX_COUNTED_CLIENTS:
                self._counts.clear()
            self._counts[client_id] = (count, counted_ms)
        return count < MAX_KEPT_PER_CLIENT

    def note(self, client_id: str, result: FrameResult) -> None:
        """Counts what a frame has added."""
        kept = sum(1 for o in result.outcomes if isinstance(o, Refused) and o.kept)
        if kept and client_id in self._counts:
            count, counted_ms = self._counts[client_id]
            self._counts[client_id] = (count + kept, counted_ms)
