"""From a token to a principal, and the end of both when the key ends.

A verified key is answered from memory. A refresher asks the database about
every key in memory twice a second, so a key that is revoked in any process
dies in all of them within a second; in the process that revokes it, at once.
"""

import asyncio
import logging
from collections.abc import Callable
from hashlib import sha256

from bson import ObjectId

from server.auth.cache import KeyCache, Verified
from server.auth.model import credentials_invalid, ending, parse_key, secret_matches
from server.auth.store import ApiKeyStore, KeyState
from server.auth.watches import End, Watches
from server.kernel.clock import Clock
from server.kernel.errors import DomainError
from server.kernel.principal import Principal

logger = logging.getLogger(__name__)

MAX_CACHED_KEYS = 10_000
MAX_STALE_MS = 30_000
"""How long a key counts without the database having confirmed it."""
REFRESH_INTERVAL_SECONDS = 0.5
REFRESH_PAGE_SIZE = 1_000
MAX_LOOKUPS = 16
"""Keys looked up at once: what unknown tokens can cost the database."""


class KeyAuthenticator:
    """Authenticates tokens and ends the streams of keys that end.

    `max_cached_keys` bounds memory: the least recently used key goes and is
    looked up again when it comes back.
    """

    def __init__(
        self, store: ApiKeyStore, clock: Clock, *, max_cached_keys: int = MAX_CACHED_KEYS
    ) -> None:
        self._store = store
        self._clock = clock
        self._cache = KeyCache(max_cached_keys)
        self._watches = Watches()
        self._lookups = asyncio.Semaphore(MAX_LOOKUPS)
        self._endings = 0
        self._database_away = False

    async def authenticate(self, token: str) -> Principal:
        """Who `token` stands for.

        Raises CREDENTIALS_INVALID, API_KEY_REVOKED, API_KEY_EXPIRED, and
        DEPENDENCY_UNAVAILABLE when the database would have to be asked and
        cannot be reached.
        """
        digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
        entry = self._fresh(digest)
        if entry is None:
            entry = await self._look_up(token, digest)
        principal = entry.principal
        error = ending(principal.api_key_id, None, entry.expires_time, self._clock())
        if error is not None:
            raise error
        return principal

    async def authenticate_key(self, key_id: str) -> Principal:
        """Whose key this is, on the word of a ticket that the key made: its text is not asked.

        Raises what `authenticate` raises.
        """
        entry = self._cache.of_key(key_id)
        now = self._clock()
        if entry is None or now - entry.checked_time > MAX_STALE_MS:
            async with self._lookups:
                key = await self._store.find(ObjectId(key_id))
            if key is None:
                raise credentials_invalid()
            revoked_time, entry = key.revoked_time, Verified(key.principal, key.expires_time, now)
        else:
            revoked_time = None
        error = ending(key_id, revoked_time, entry.expires_time, self._clock())
        if error is not None:
            raise error
        return entry.principal

    def watch(self, principal: Principal, end: End) -> Callable[[], None]:
        """Register an open stream: `end` is called when its key is revoked or expires.

        Returns what unregisters it; calling that twice, or after `end`, is fine.
        """
        entry = self._cache.of_key(principal.api_key_id)
        expires_time = entry.expires_time if entry else None
        return self._watches.add(principal.api_key_id, expires_time, end)

    def end(self, key_id: str, error: DomainError) -> None:
        """Forget a key that has ended, and end its streams, in this process."""
        self._endings += 1
        self._cache.drop(key_id)
        self._watches.end(key_id, error)

    async def run(self) -> None:
        """Refresh until cancelled. Survives anything, the database going away included."""
        while True:
            _raise_if_cancelled()
            await asyncio.sleep(REFRESH_INTERVAL_SECONDS)
            try:
                await self.refresh()
            except DomainError as error:
                self._note_away(error)
            except Exception:
                logger.exception("API keys could not be refreshed")
            else:
                self._note_back()

    async def refresh(self) -> None:
        """Ask the database about every key that is cached or has streams; end those that ended.

        Expiry of keys with streams needs no database and comes first. Raises
        DEPENDENCY_UNAVAILABLE.
        """
        now = self._clock()
        for key_id in self._watches.expired(now):
            self._apply(key_id, KeyState(revoked_time=None, expires_time=now), now)
        key_ids = list({*self._cache.key_ids(), *self._watches.key_ids()})
        for start in range(0, len(key_ids), REFRESH_PAGE_SIZE):
            await self._refresh_page(key_ids[start : start + REFRESH_PAGE_SIZE])

    async def _refresh_page(self, key_ids: list[str]) -> None:
        asked_time = self._clock()
        states = await self._store.states(key_ids)
        for key_id in key_ids:
            self._apply(key_id, states.get(key_id), asked_time)

    def _apply(self, key_id: str, state: KeyState | None, asked_time: int) -> None:
        if state is None:
            self.end(key_id, credentials_invalid())
            return
        error = ending(key_id, state.revoked_time, state.expires_time, asked_time)
        if error is not None:
            self.end(key_id, error)
            return
        self._watches.set_expiry(key_id, state.expires_time)
        entry = self._cache.of_key(key_id)
        if entry is not None:
            entry.checked_time = max(entry.checked_time, asked_time)

    def _fresh(self, digest: bytes) -> Verified | None:
        entry = self._cache.get(digest)
        if entry is not None and self._clock() - entry.checked_time <= MAX_STALE_MS:
            return entry
        return None

    async def _look_up(self, token: str, digest: bytes) -> Verified:
        parsed = parse_key(token)
        if parsed is None:
            raise credentials_invalid()
        key_id, secret = parsed
        async with self._lookups:
            # A neighbour with the same key may have been first.
            entry = self._fresh(digest)
            if entry is not None:
                return entry
            endings, asked_time = self._endings, self._clock()
            key = await self._store.find(key_id)
        if key is None or not secret_matches(key, secret):
            raise credentials_invalid()
        error = ending(str(key.id), key.revoked_time, key.expires_time, asked_time)
        if error is not None:
            self.end(str(key.id), error)
            raise error
        entry = Verified(key.principal, key.expires_time, asked_time)
        # A key that ended while we read may be this one: then it is not kept.
        if endings == self._endings:
            self._cache.put(digest, entry)
        return entry

    def _note_away(self, error: DomainError) -> None:
        if not self._database_away:
            fields = {"reason": error.reason, "message": error.message}
            logger.warning("API keys could not be refreshed", extra={"fields": fields})
        self._database_away = True

    def _note_back(self) -> None:
        if self._database_away:
            logger.info("API keys are refreshed again")
        self._database_away = False


def _raise_if_cancelled() -> None:
    # In Python 3.11 asyncio.wait_for, which the driver awaits, can swallow a
    # cancellation that arrives with its result; the count of requests remains.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
