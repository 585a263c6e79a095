"""API keys: how they are written, what they allow, and when they end."""

import hmac
import json
import re
from base64 import b32encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from bson import ObjectId

from server.kernel.errors import DomainError, Reason, field_invalid
from server.kernel.principal import ADMIN, HOUSE_CLIENT, Principal

SCOPES = (
    "wallet.read",
    "wallet.write",
    "wallet.bypass",
    "credits.read",
    "credits.write",
    "usage.read",
    "usage.write",
    "catalog.read",
    "catalog.write",
    "subscriptions.read",
    "subscriptions.write",
    ADMIN,
)
"""What a key can allow. The contract names the same (a test compares the two)."""

MAX_REQUEST_ID_CHARACTERS = 128
MAX_NAME_CHARACTERS = 100

_PREFIX = "zaaz"
_KEY = re.compile(r"zaaz_([0-9a-f]{24})_([a-z2-7]{52})")
_CLIENT_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_NO_KEY_SHA256 = bytes(32)
_SECRET_PURPOSE = b"api-key-secret\0"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept: times in milliseconds, the secret only as its SHA-256."""

    id: ObjectId
    client_id: str
    name: str
    scopes: tuple[str, ...]
    expires_time: int | None
    revoked_time: int | None
    created_time: int
    secret_sha256: bytes

    @property
    def principal(self) -> Principal:
        """Whoever calls with this key."""
        return Principal(self.client_id, str(self.id), frozenset(self.scopes))


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """What is asked of CreateApiKey. `expires_time` in milliseconds, None for never."""

    request_id: str
    client_id: str
    name: str
    scopes: tuple[str, ...]
    expires_time: int | None = None

    def check(self) -> None:
        """FIELD_INVALID for the first field that breaks its rule, whoever asks (the CLI too)."""
        if not 1 <= len(self.request_id) <= MAX_REQUEST_ID_CHARACTERS:
            raise field_invalid("request_id", f"must have 1 to {MAX_REQUEST_ID_CHARACTERS} letters")
        if self.client_id == HOUSE_CLIENT:
            raise field_invalid("client_id", f"{HOUSE_CLIENT} is this server's own")
        if not _CLIENT_ID.fullmatch(self.client_id):
            raise field_invalid(
                "client_id", "must be lowercase letters, digits and dashes, 63 at most"
            )
        if len(self.name) > MAX_NAME_CHARACTERS:
            raise field_invalid("name", f"must have at most {MAX_NAME_CHARACTERS} letters")
        if not self.scopes or not set(self.scopes) <= set(SCOPES):
            raise field_invalid("scopes", f"must be one or more of {', '.join(SCOPES)}")

    def is_expired(self, now: int) -> bool:
        """Whether the key would be born dead."""
        return self.expires_time is not None and self.expires_time <= now

    def fingerprint(self) -> bytes:
        """SHA-256 of the payload as canonical JSON: what a reuse of the request_id must match."""
        payload = {
            "client_id": self.client_id,
            "expires_time": self.expires_time,
            "name": self.name,
            "scopes": sorted(self.scopes),
        }
        canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"))
        return sha256(canonical.encode()).digest()


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A key and its text, which is "" where it can no longer be derived."""

    api_key: ApiKey
    key: str


class KeySecrets:
    """Derives a key's secret from its id and the server's secret, so that neither is stored.

    A replayed CreateApiKey can therefore return the key again. Verification
    uses only the SHA-256 in the row: it survives a change of the server's
    secret, after which replays have no key to return.
    """

    def __init__(self, server_secret: str) -> None:
        self._server_secret = server_secret.encode()

    def derive(self, key_id: ObjectId) -> str:
        """The secret of `key_id`: 256 bits as 52 lowercase base32 digits, no underscore."""
        message = _SECRET_PURPOSE + str(key_id).encode()
        digest = hmac.digest(self._server_secret, message, "sha256")
        return b32encode(digest).decode().rstrip("=").lower()

    def rebuild(self, key: ApiKey) -> str:
        """The text of `key`; "" if the server's secret has changed since it was made."""
        secret = self.derive(key.id)
        return format_key(key.id, secret) if secret_matches(key, secret) else ""


def format_key(key_id: ObjectId, secret: str) -> str:
    """`zaaz_<id>_<secret>`."""
    return f"{_PREFIX}_{key_id}_{secret}"


def parse_key(token: str) -> tuple[ObjectId, str] | None:
    """Id and secret of a token; None for anything but `format_key`'s text."""
    match = _KEY.fullmatch(token)
    return (ObjectId(match[1]), match[2]) if match else None


def hash_secret(secret: str) -> bytes:
    """What is stored of a secret. It has 256 random bits, so no slow hash is needed."""
    return sha256(secret.encode()).digest()


def secret_matches(key: ApiKey | None, secret: str) -> bool:
    """Whether `secret` is the key's; an unknown key (None) takes the same time to refuse."""
    expected = _NO_KEY_SHA256 if key is None else key.secret_sha256
    return hmac.compare_digest(hash_secret(secret), expected) and key is not None


def ending(
    key_id: str, revoked_time: int | None, expires_time: int | None, now: int
) -> DomainError | None:
    """Why a key no longer counts: API_KEY_REVOKED, API_KEY_EXPIRED or None."""
    if revoked_time is not None:
        return DomainError(Reason.API_KEY_REVOKED, "API key was revoked", {"api_key_id": key_id})
    if expires_time is not None and expires_time <= now:
        return DomainError(Reason.API_KEY_EXPIRED, "API key has expired", {"api_key_id": key_id})
    return None


def credentials_invalid() -> DomainError:
    """One answer for a malformed token, an unknown key and a wrong secret."""
    return DomainError(Reason.CREDENTIALS_INVALID, "no such API key")


def normal_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """Each scope once, sorted, as they are stored."""
    return tuple(sorted(set(scopes)))
