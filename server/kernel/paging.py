"""Page tokens: opaque, signed, bound to the query that they continue."""

import base64
import binascii
import hmac
import json
from hashlib import sha256

from server.kernel.errors import DomainError, FieldViolation, Reason

_SIGNATURE_BYTES = 16
DEFAULT_PAGE_SIZE = 50


def page_size(asked: int, maximum: int) -> int:
    """What a page will have: the default for 0, `maximum` when more is asked (AIP-158)."""
    return min(asked or DEFAULT_PAGE_SIZE, maximum)


class PageTokens:
    """Signs and reads page tokens with a key of its own derived from the server's secret."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), b"page-token", "sha256")

    def make(self, query: str, cursor: list[str | int]) -> str:
        """The token that continues `query` after `cursor`."""
        body = json.dumps(cursor, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._sign(query, body) + body).decode().rstrip("=")

    def next(self, query: str, cursor: list[str | int] | None) -> str:
        """The token after a page that ended at `cursor`; empty when it was the last."""
        return "" if cursor is None else self.make(query, cursor)

    def read(self, query: str, token: str) -> list[str | int] | None:
        """The cursor, None for an empty token; PAGE_TOKEN_INVALID for any other than `make`'s."""
        if not token:
            return None
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            raise _invalid() from None
        signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(query, body)):
            raise _invalid()
        cursor: list[str | int] = json.loads(body)
        return cursor

    def _sign(self, query: str, body: bytes) -> bytes:
        signed = sha256(query.encode()).digest() + body
        return hmac.digest(self._key, signed, "sha256")[:_SIGNATURE_BYTES]


def _invalid() -> DomainError:
    description = "must be a next_page_token of the same query, unchanged"
    return DomainError(
        Reason.PAGE_TOKEN_INVALID,
        f"page_token {description}",
        violations=[FieldViolation("page_token", description)],
    )
