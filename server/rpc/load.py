"""How much the server takes on at once. What is over is refused at once and typed, while those
who are in go on: memory for each is bounded, and so is the whole.
"""

from dataclasses import dataclass
from typing import Final

from server.kernel.errors import DomainError, Reason
from server.rpc.call import Call, Step

MAX_UNARY_CALLS: Final = 4_096
MAX_STREAMS: Final = 25_000
"""An idle stream costs about 30 KB. More than may watch wallets, so that watchers never
keep usage streams out."""


@dataclass(slots=True)
class Load:
    """Calls of one kind that are open, and how many may be."""

    queue: str
    limit: int
    open: int = 0

    def limited(self, inner: Step) -> Step:
        """`inner` while there is room; OVERLOADED otherwise."""

        async def run(call: Call) -> bytes | None:
            if self.open >= self.limit:
                raise self._overloaded()
            self.open += 1
            try:
                return await inner(call)
            finally:
                self.open -= 1

        return run

    def _overloaded(self) -> DomainError:
        return DomainError(
            Reason.OVERLOADED,
            f"{self.limit} {self.queue} are open: retry later",
            {"queue": self.queue, "limit": self.limit},
        )
