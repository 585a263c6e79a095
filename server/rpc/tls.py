"""The certificate that the server shows, from files that may be renewed while it runs."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

_log = logging.getLogger(__name__)

CERTIFICATE_SETTING: Final = "ZAAZ_TLS_CERT"
KEY_SETTING: Final = "ZAAZ_TLS_KEY"
CLIENT_CA_SETTING: Final = "ZAAZ_TLS_CLIENT_CA"


class UnusableTlsError(Exception):
    """A file holds nothing that could be served with; the message names its setting."""


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM: the certificate chain, its private key, and whom clients have to be certified by."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None = None


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where a `Tls` stands. With `client_ca`, clients need a certificate too."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def read(self) -> Tls:
        """What stands there now. UnusableTlsError."""
        tls = Tls(
            _read(CERTIFICATE_SETTING, self.certificate),
            _read(KEY_SETTING, self.key),
            None if self.client_ca is None else _read(CLIENT_CA_SETTING, self.client_ca),
        )
        _check(tls)
        return tls

    @property
    def states(self) -> tuple[object, ...]:
        """Of each file, what is another when the file is."""
        return tuple(_state(path) for path in (self.certificate, self.key, self.client_ca))


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """With what the files hold at each new connection. UnusableTlsError.

    Files that cannot be used, as when only one of two has been replaced, change
    nothing: what was read last goes on being served.
    """
    renewals = _Renewals(files)
    # Its stubs do not know that None may be answered; its documentation does.
    following = cast("Callable[[], grpc.ServerCertificateConfiguration]", renewals.next)
    return grpc.dynamic_ssl_server_credentials(
        renewals.first, following, require_client_authentication=files.client_ca is not None
    )


class _Renewals:
    """What gRPC asks, in threads of its own, before it answers a new connection."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._states = files.states
        self._served = files.read()
        self.first = _configuration(self._served)

    def next(self) -> grpc.ServerCertificateConfiguration | None:
        """None: as it was."""
        with self._lock:
            # Looked at before they are read: what changes in between is read the next time.
            states = self._files.states
            if states == self._states:
                return None
            self._states = states
            try:
                found = self._files.read()
            except UnusableTlsError as error:
                _log.warning(
                    "a changed certificate cannot be used: the last one goes on being served",
                    extra={"fields": {"error": str(error)}},
                )
                return None
            if found == self._served:
                return None
            self._served = found
            _log.info("new connections are served with a changed certificate")
            return _configuration(found)


def _configuration(tls: Tls) -> grpc.ServerCertificateConfiguration:
    pairs = [(tls.key, tls.certificate)]
    return grpc.ssl_server_certificate_configuration(pairs, root_certificates=tls.client_ca)


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnusableTlsError(f"{setting}: {path} cannot be read: {error.strerror}") from error


def _state(path: Path | None) -> tuple[int, ...] | None:
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    # A change of its mode alone may let it be read: ctime tells of that too.
    if found is None:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _check(tls: Tls) -> None:
    certificate = _certificates(tls.certificate, CERTIFICATE_SETTING)[0]
    if tls.client_ca is not None:
        _certificates(tls.client_ca, CLIENT_CA_SETTING)
    try:
        key = load_pem_private_key(tls.key, None)
    except (TypeError, ValueError) as error:
        message = f"{KEY_SETTING} holds no private key in PEM, or one with a passphrase"
        raise UnusableTlsError(message) from error
    if key.public_key() != certificate.public_key():
        raise UnusableTlsError(
            f"{CERTIFICATE_SETTING} and {KEY_SETTING}: the certificate and key do not fit"
            " each other"
        )


def _certificates(pem: bytes, setting: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise UnusableTlsError(f"{setting} holds no certificate in PEM") from error
