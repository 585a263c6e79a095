"""The server's signature on the head of a wallet's chain.

    signature = Ed25519(canonical(head)),  key = HKDF-SHA-256(the server's secret)

The canonical form is a JSON array in UTF-8 without white space, as that of an
entry is (ARCHITECTURE.md); `zaaz_client.statements` reads it, and any language can.
"""

from hashlib import sha256
from typing import NamedTuple

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ALGORITHM = "Ed25519"
HEAD_VERSION = 1

_PURPOSE = b"zaaz statement signing key 1"
_SEED_BYTES = 32
_KEY_ID_DIGITS = 16


class Head(NamedTuple):
    """A wallet's chain after one of its entries (sequence 0: before the first)."""

    wallet_id: str
    sequence: int
    chain: bytes
    balance_after_micros: int
    signed_ms: int


class Signer:
    """Signs with the one key that the server's secret comes to: the same in every process."""

    def __init__(self, secret: str) -> None:
        seed = HKDF(SHA256(), _SEED_BYTES, salt=None, info=_PURPOSE).derive(secret.encode())
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes_raw()
        self.key_id = sha256(self.public_key).hexdigest()[:_KEY_ID_DIGITS]

    def sign(self, head: Head) -> bytes:
        """64 bytes, always the same for the same head."""
        return self._key.sign(canonical(head, self.key_id))


def canonical(head: Head, key_id: str) -> bytes:
    """What is signed."""
    return orjson.dumps(
        (
            HEAD_VERSION,
            head.wallet_id,
            head.sequence,
            head.chain.hex(),
            head.balance_after_micros,
            head.signed_ms,
            key_id,
        )
    )
