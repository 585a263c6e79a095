"""Where the server listens, and with what encryption."""

import errno
import os
import socket
from typing import Final

import grpc

from server.rpc.address import Address
from server.rpc.tls import TlsFiles, UnusableTlsError, server_credentials

TRUSTED_NETWORK: Final = "trusted-network"
"""The setting that says: something else encrypts."""


class CannotServeError(Exception):
    """The server cannot start as it is told to; the message says what is wrong."""


def bind(server: grpc.aio.Server, address: Address, tls: TlsFiles | None, plaintext: str) -> int:
    """Listen at `address`; the port that it got. CannotServeError says why not."""
    try:
        if tls is None:
            _require_private(address, plaintext)
            return server.add_insecure_port(str(address))
        return server.add_secure_port(str(address), server_credentials(tls))
    except UnusableTlsError as error:
        raise CannotServeError(str(error)) from error
    except RuntimeError as error:
        raise CannotServeError(_why_not(address)) from error


def _require_private(address: Address, plaintext: str) -> None:
    if not address.is_loopback and plaintext != TRUSTED_NETWORK:
        raise CannotServeError(
            f"{address} is reachable from other machines and keys would travel in the clear: "
            "set ZAAZ_TLS_CERT and ZAAZ_TLS_KEY, or ZAAZ_PLAINTEXT=trusted-network "
            "when something else encrypts"
        )


def _why_not(address: Address) -> str:
    """grpc says only that binding failed; the operating system knows why."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"cannot listen at {address}: the address is in use"
        return f"cannot listen at {address}: {os.strerror(error.errno or 0) or error}"
    return f"cannot listen at {address}"
