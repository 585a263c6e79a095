"""Use cases of API keys. It is the edge's Authenticator too."""

from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from bson import ObjectId

from server.auth.authenticator import KeyAuthenticator
from server.auth.model import (
    ApiKey,
    CreatedKey,
    KeySecrets,
    NewApiKey,
    ending,
    format_key,
    hash_secret,
    normal_scopes,
)
from server.auth.store import ApiKeyStore, KeyFilter, RequestIdTakenError
from server.auth.tickets import StreamTickets
from server.auth.watches import End
from server.kernel.clock import Clock, iso, system_clock
from server.kernel.errors import DomainError, Reason, field_invalid
from server.kernel.ids import new_id
from server.kernel.principal import Principal
from server.mongo.database import Database

OPERATOR = "@operator"
"""Who makes a key from the command line: no client_id, so that its request_ids are its own."""


class AuthService:
    """Makes, lists, revokes and authenticates keys. `server_secret` is ZAAZ_SECRET."""

    def __init__(self, database: Database, server_secret: str, clock: Clock = system_clock) -> None:
        self._store = ApiKeyStore(database)
        self._secrets = KeySecrets(server_secret)
        self._clock = clock
        self.tickets = StreamTickets(server_secret, clock)
        self._authenticator = KeyAuthenticator(self._store, clock)

    async def create_key(self, creator: str, wanted: NewApiKey) -> CreatedKey:
        """Make a key for `creator` (its client_id), or return what the same request made before.

        A replay after a change of the server's secret returns the row with an
        empty key: its text can no longer be derived, and it is not stored.
        Raises FIELD_INVALID, REQUEST_ID_REUSED, DEPENDENCY_UNAVAILABLE.
        """
        wanted.check()
        now = self._clock()
        if wanted.is_expired(now):
            # In time when it was first asked, perhaps: then this is its replay.
            return await self._replay(creator, wanted) or _refuse_expired(now)
        key_id = new_id()
        secret = self._secrets.derive(key_id)
        key = _new_key(key_id, secret, wanted, now)
        try:
            await self._store.insert(key, creator, wanted)
        except RequestIdTakenError:
            replayed = await self._replay(creator, wanted)
            if replayed is None:
                raise
            return replayed
        return CreatedKey(key, format_key(key_id, secret))

    async def create_first_key(
        self, client_id: str, scopes: tuple[str, ...], name: str = ""
    ) -> CreatedKey:
        """Make a key on the word of whoever holds the database: always a new one.

        Raises FIELD_INVALID, DEPENDENCY_UNAVAILABLE.
        """
        request_id = f"first-key-{new_id()}"
        return await self.create_key(OPERATOR, NewApiKey(request_id, client_id, name, scopes))

    async def list_keys(
        self, which: KeyFilter, before: ObjectId | None, limit: int
    ) -> list[ApiKey]:
        """Up to `limit` keys, newest first, older than `before`. Raises DEPENDENCY_UNAVAILABLE."""
        return await self._store.page(which, before, limit)

    async def revoke_key(self, key_id: ObjectId) -> ApiKey:
        """End a key and its streams: at once here, within a second in other processes.

        Revoking twice is fine. Raises API_KEY_NOT_FOUND, DEPENDENCY_UNAVAILABLE.
        """
        key = await self._store.revoke(key_id, self._clock())
        if key is None:
            raise DomainError(Reason.API_KEY_NOT_FOUND, "no such API key", {"id": key_id})
        error = ending(str(key.id), key.revoked_time, None, self._clock())
        if error is not None:
            self._authenticator.end(str(key.id), error)
        return key

    def authenticate(self, token: str) -> Coroutine[Any, Any, Principal]:
        """See `KeyAuthenticator.authenticate`."""
        return self._authenticator.authenticate(token)

    async def authenticate_ticket(self, ticket: str, method: str, raw: bytes) -> Principal:
        """Whose ticket it is, if it opens this method with these bytes as its request.

        Raises TICKET_INVALID, and of the key that made it what `authenticate` raises.
        """
        return await self._authenticator.authenticate_key(self.tickets.read(ticket, method, raw))

    def watch(self, principal: Principal, end: End) -> Callable[[], None]:
        """See `KeyAuthenticator.watch`."""
        return self._authenticator.watch(principal, end)

    async def refresh(self) -> None:
        """See `KeyAuthenticator.refresh`."""
        await self._authenticator.refresh()

    async def run(self) -> None:
        """Keep verified keys true until cancelled; app.py runs it as a task."""
        await self._authenticator.run()

    async def _replay(self, creator: str, wanted: NewApiKey) -> CreatedKey | None:
        found = await self._store.find_request(creator, wanted.request_id)
        if found is None:
            return None
        key, fingerprint = found
        if fingerprint != wanted.fingerprint():
            raise DomainError(
                Reason.REQUEST_ID_REUSED,
                "this request_id was used before with another payload",
                {"request_id": wanted.request_id},
            )
        return CreatedKey(key, self._secrets.rebuild(key))


def _refuse_expired(now: int) -> NoReturn:
    raise field_invalid("expires_time", f"must be after {iso(now)}")


def _new_key(key_id: ObjectId, secret: str, wanted: NewApiKey, now: int) -> ApiKey:
    return ApiKey(
        id=key_id,
        client_id=wanted.client_id,
        name=wanted.name,
        scopes=normal_scopes(wanted.scopes),
        expires_time=wanted.expires_time,
        revoked_time=None,
        created_time=now,
        secret_sha256=hash_secret(secret),
    )
