"""The streams that are open: how many there may be, and their end when the gateway stops."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from gateway.refusals import Refusal

MAX_STREAMS: Final = 4_000
"""Of one gateway: about 40 KiB of memory each."""
MAX_STREAMS_PER_KEY: Final = 2_000
"""Of one API key, those that its tickets opened included."""

BUSY_RETRY_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 15.0
"""Between two comments that keep proxies from closing a silent stream."""

Metadata = Sequence[tuple[str, str]]


class OpenStreams:
    """Counts streams by whose they are, and ends them all when it is time."""

    def __init__(
        self,
        max_streams: int = MAX_STREAMS,
        max_per_key: int = MAX_STREAMS_PER_KEY,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self.heartbeat_seconds = heartbeat_seconds
        self._max = max_streams
        self._max_per_key = max_per_key
        self._by_owner: Counter[str] = Counter()
        self._ends: set[Callable[[], object]] = set()
        self._is_ending = False

    def __len__(self) -> int:
        return len(self._ends)

    @contextmanager
    def entered(self, end: Callable[[], object]) -> Iterator[None]:
        """Counts a stream for the block; `end` is called when the gateway stops.

        A Refusal if there are too many, or the gateway stops already.
        """
        if self._is_ending:
            raise Refusal(503, "DRAINING", "the gateway is going away", retry_seconds=1)
        if len(self._ends) >= self._max:
            raise _too_many("streams are open", self._max)
        self._ends.add(end)
        try:
            yield
        finally:
            self._ends.discard(end)

    @contextmanager
    def owned(self, owner: str) -> Iterator[None]:
        """Counts a stream as its owner's for the block. A Refusal if that has too many.

        For streams that the server has let in: else anyone could use up another's.
        """
        if self._by_owner[owner] >= self._max_per_key:
            raise _too_many("streams are open with this key", self._max_per_key)
        self._by_owner[owner] += 1
        try:
            yield
        finally:
            self._by_owner[owner] -= 1
            if not self._by_owner[owner]:
                del self._by_owner[owner]

    def end(self) -> None:
        """Ends every stream, so that its client goes on elsewhere. No more are let in."""
        self._is_ending = True
        for end in tuple(self._ends):
            end()


def owner_of(metadata: Metadata) -> str:
    """What all streams of a key have in common: keys and tickets name the key's id second."""
    credentials = next((value for name, value in metadata if name == "authorization"), "")
    parts = credentials.split("_")
    return parts[1] if len(parts) > 2 else credentials


def _too_many(what: str, limit: int) -> Refusal:
    return Refusal(
        429,
        "TOO_MANY_WATCHERS",
        f"{limit} {what}: retry later",
        {"limit": str(limit)},
        retry_seconds=BUSY_RETRY_SECONDS,
    )
