"""Keys that have been verified, so that the database is not asked on every call."""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from server.kernel.principal import Principal


@dataclass(slots=True)
class Verified:
    """A key that was good when the database was last asked, at `checked_time` (milliseconds)."""

    principal: Principal
    expires_time: int | None
    checked_time: int


class KeyCache:
    """The most recently used verified keys, at most `limit`, by the SHA-256 of their text.

    Only verified keys come in, so guessed tokens cannot push good ones out.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_digest: OrderedDict[bytes, Verified] = OrderedDict()
        # A key has one text, so one digest.
        self._digests: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._by_digest)

    def get(self, digest: bytes) -> Verified | None:
        """The entry of this token, which becomes the most recently used."""
        entry = self._by_digest.get(digest)
        if entry is not None:
            self._by_digest.move_to_end(digest)
        return entry

    def put(self, digest: bytes, entry: Verified) -> None:
        """Keep an entry; the least recently used one goes when there are too many."""
        self._by_digest[digest] = entry
        self._by_digest.move_to_end(digest)
        self._digests[entry.principal.api_key_id] = digest
        if len(self._by_digest) > self._limit:
            _, oldest = self._by_digest.popitem(last=False)
            del self._digests[oldest.principal.api_key_id]

    def of_key(self, key_id: str) -> Verified | None:
        """The entry of a key, without counting as use."""
        digest = self._digests.get(key_id)
        return None if digest is None else self._by_digest[digest]

    def drop(self, key_id: str) -> None:
        """Forget a key."""
        digest = self._digests.pop(key_id, None)
        if digest is not None:
            del self._by_digest[digest]

    def key_ids(self) -> Collection[str]:
        """The ids of all cached keys."""
        return self._digests.keys()
