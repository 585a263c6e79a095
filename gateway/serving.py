"""Serving: the application on a socket of its own."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import uvicorn
from zaaz_client.connections import Connections

from gateway.app import build
from gateway.config import Address, Settings
from gateway.open_streams import OpenStreams
from gateway.security import hardened
from gateway.upstream import Upstream, connect

STOP_SECONDS: Final = 5
"""So long requests that run may take to finish."""
BACKLOG: Final = 1_024


class CannotServeError(Exception):
    """The gateway cannot start as it is told to; the message says what is wrong."""


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Address]:
    """Serves until the block is left; the address that it got. CannotServeError."""
    listener = _bind(settings.address)
    address = Address(settings.address.host, listener.getsockname()[1])
    try:
        connections = _connect(settings)
        try:
            async with _running(settings, Upstream(connections), listener):
                yield address
        finally:
            await connections.close()
    finally:
        listener.close()


def _connect(settings: Settings) -> Connections:
    try:
        return connect(settings.grpc_target, settings.grpc_ca, settings.grpc_server_name)
    except (OSError, ValueError) as error:
        raise CannotServeError(f"ZAAZ_GRPC_CA cannot be used: {error}") from error


@asynccontextmanager
async def _running(
    settings: Settings, upstream: Upstream, listener: socket.socket
) -> AsyncIterator[None]:
    streams = OpenStreams()
    server = _Server(_config(settings, upstream, streams))
    task = asyncio.create_task(server.serve(sockets=[listener]), name="rest")
    await server.is_up.wait()
    try:
        yield
    finally:
        streams.end()
        server.should_exit = True
        await task


def _config(settings: Settings, upstream: Upstream, streams: OpenStreams) -> uvicorn.Config:
    try:
        config = uvicorn.Config(
            build(settings.security, upstream, streams=streams),
            lifespan="off",
            log_config=None,
            backlog=BACKLOG,
            timeout_graceful_shutdown=STOP_SECONDS,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
            **hardened(settings.security),
        )
        config.load()
    except OSError as error:
        raise CannotServeError(
            f"ZAAZ_REST_TLS_CERT and ZAAZ_REST_TLS_KEY cannot be used: {error}"
        ) from error
    return config


class _Server(uvicorn.Server):
    """uvicorn without its hands on the process's signals, and which says that it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the business of whoever runs this."""
        yield

    async def startup(self, sockets: Any = None) -> None:
        """As uvicorn's."""
        await super().startup(sockets)
        self.is_up.set()


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
    except OSError as error:
        listener.close()
        text = f"ZAAZ_REST_ADDRESS: cannot listen at {address}: {_why(error)}"
        raise CannotServeError(text) from error
    return listener


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the address is in use"
    return os.strerror(error.errno) if error.errno else str(error)
