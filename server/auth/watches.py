"""Open streams, by the key that opened them, so that they end with it."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import count

from server.kernel.errors import DomainError

logger = logging.getLogger(__name__)

End = Callable[[DomainError], None]


@dataclass(slots=True)
class _Watched:
    expires_time: int | None
    ends: dict[int, End] = field(default_factory=dict)


class Watches:
    """The streams of each key. There are as many as the server has open streams."""

    def __init__(self) -> None:
        self._by_key: dict[str, _Watched] = {}
        self._numbers = count()

    def add(self, key_id: str, expires_time: int | None, end: End) -> Callable[[], None]:
        """Register a stream: `end` is called at most once. Returns what unregisters it."""
        watched = self._by_key.setdefault(key_id, _Watched(expires_time))
        number = next(self._numbers)
        watched.ends[number] = end

        def remove() -> None:
            watched.ends.pop(number, None)
            # After `end` another entry may stand under the same key.
            if not watched.ends and self._by_key.get(key_id) is watched:
                del self._by_key[key_id]

        return remove

    def key_ids(self) -> Collection[str]:
        """The ids of keys that have streams open."""
        return self._by_key.keys()

    def set_expiry(self, key_id: str, expires_time: int | None) -> None:
        """What the database says of a key's expiry, in milliseconds."""
        watched = self._by_key.get(key_id)
        if watched is not None:
            watched.expires_time = expires_time

    def expired(self, now: int) -> list[str]:
        """The keys whose time is over."""
        return [
            key_id
            for key_id, watched in self._by_key.items()
            if watched.expires_time is not None and watched.expires_time <= now
        ]

    def end(self, key_id: str, error: DomainError) -> None:
        """End every stream of a key."""
        watched = self._by_key.pop(key_id, None)
        if watched is None:
            return
        for end in list(watched.ends.values()):
            try:
                end(error)
            except Exception:
                # One stream's defect must not keep the others open.
                fields = {"api_key_id": key_id}
                logger.exception("a stream could not be ended", extra={"fields": fields})
