"""What a connection is encrypted with, and whether that has been replaced since."""

import os
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from zaaz_client.watched_file import WatchedFile

Pem: TypeAlias = bytes | str | os.PathLike[str]
"""PEM as bytes, or the path of a file with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Whom to trust, and who this is. Files are read again when they have changed.

    `roots`: certificates that the server's is trusted by; None: the system's.
    `certificate`, `key`: this side's chain and private key, for servers that
    want to know (mutual TLS); both or neither. ValueError.

    A file that changes is used for the next call: that call and those after it
    go over a new connection, those before it end on the old one. Where new files
    cannot be used, as while only one of two has been replaced, the old
    connection stays, and a warning is logged.
    """

    roots: Pem | None = None
    certificate: Pem | None = None
    key: Pem | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together: give both or neither")


class TlsSource:
    """Reads what a `Tls` names."""

    def __init__(self, tls: Tls) -> None:
        self._roots = _part(tls.roots)
        self._certificate = _part(tls.certificate)
        self._key = _part(tls.key)
        parts = (self._roots, self._certificate, self._key)
        self._files = [part for part in parts if isinstance(part, WatchedFile)]
        self._read: tuple[bytes | None, ...] | None = None

    @property
    def is_changed(self) -> bool:
        """Whether a file is another one since `load`."""
        return any(file.is_changed for file in self._files)

    def load(self) -> grpc.ChannelCredentials | None:
        """What to connect with; None if it is what the last call gave.

        OSError for a file that cannot be read, ValueError for what makes no sense.
        """
        contents = self._contents()
        if contents == self._read:
            return None
        roots, certificate, key = contents
        if roots is not None:
            _certificates(roots, "roots")
        if certificate is not None and key is not None:
            _check_pair(certificate, key)
        self._read = contents
        return grpc.ssl_channel_credentials(roots, key, certificate)

    def _contents(self) -> tuple[bytes | None, ...]:
        """Of all parts, whatever is wrong with one: each counts as seen."""
        contents: list[bytes | None] = []
        problems: list[Exception] = []
        for part in (self._roots, self._certificate, self._key):
            try:
                contents.append(_content(part))
            except (OSError, ValueError) as error:
                problems.append(error)
        if problems:
            raise problems[0]
        return tuple(contents)


def _part(pem: Pem | None) -> bytes | WatchedFile | None:
    return pem if pem is None or isinstance(pem, bytes) else WatchedFile(pem)


def _content(part: bytes | WatchedFile | None) -> bytes | None:
    return part.read() if isinstance(part, WatchedFile) else part


def _check_pair(certificate: bytes, key: bytes) -> None:
    certified: PublicKeyTypes = _certificates(certificate, "certificate")[0].public_key()
    try:
        public = load_pem_private_key(key, None).public_key()
    except (TypeError, ValueError) as error:
        raise ValueError("key: no private key in PEM, or one with a passphrase") from error
    if public != certified:
        raise ValueError("certificate and key do not belong together")


def _certificates(pem: bytes, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ValueError(f"{what}: no certificates in PEM") from error
