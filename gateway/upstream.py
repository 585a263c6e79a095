"""The server, as the gateway reaches it: one gRPC channel, another when its trust changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from zaaz_client.channel import (
    KEEPALIVE_SECONDS,
    KEEPALIVE_TIMEOUT_SECONDS,
    MAX_RECEIVE_BYTES,
    MAX_RECONNECT_MS,
    MAX_SEND_BYTES,
    MIN_RECONNECT_MS,
    is_loopback,
)
from zaaz_client.connections import Connection, Connections
from zaaz_client.tls import Tls, TlsSource

DEFAULT_TIMEOUT_SECONDS: Final = 35.0
"""A little more than the server gives itself, whose own words are better."""
MAX_TIMEOUT_SECONDS: Final = 120.0
HEALTH_TIMEOUT_SECONDS: Final = 2.0

_HEALTH: Final = {
    "method": "/grpc.health.v1.Health/Check",
    "request_serializer": health_pb2.HealthCheckRequest.SerializeToString,
    "response_deserializer": health_pb2.HealthCheckResponse.FromString,
}
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", MAX_SEND_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", MIN_RECONNECT_MS),
    ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MS),
)


def connect(target: str, ca: Path | None = None, server_name: str = "") -> Connections:
    """Channels to the server at `target`; connects at the first call. Needs a running loop.

    `ca`: PEM of the certificates that are trusted, read again when it has
    changed; without, only a server on this machine is spoken to in the clear, any
    other by the system's certificates. OSError or ValueError for what cannot be used.
    `server_name`: what its certificate says, where that is not the target's host.
    """
    local = is_loopback(target)
    options: list[tuple[str, Any]] = [*_OPTIONS, ("grpc.enable_http_proxy", int(not local))]
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))

    def open_(credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
        if credentials is None:
            return grpc.aio.insecure_channel(target, options=options)
        return grpc.aio.secure_channel(target, credentials, options=options)

    return Connections(open_, None if ca is None and local else TlsSource(Tls(roots=ca)))


class _Method:
    """Calls one method of the server, over the newest connection."""

    def __init__(self, connections: Connections, kind: str, described: dict[str, Any]) -> None:
        self._connections = connections
        self._kind = kind
        self._described = described
        self._connection: Connection | None = None
        self._start: Callable[..., Any]

    def __call__(self, *requests: Any, **options: Any) -> Any:
        connection = self._connections.newest()
        if connection is not self._connection:
            bind = getattr(connection.channel, self._kind)
            self._connection, self._start = connection, bind(**self._described)
        call = self._start(*requests, **options)
        connection.carry(call)
        return call


class Upstream:
    """Callables of the server's methods."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._check = _Method(connections, "unary_unary", _HEALTH)

    def unary(self, method: MethodDescriptor) -> Callable[..., Any]:
        """For one request and one response."""
        return _Method(self._connections, "unary_unary", _described(method))

    def upload(self, method: MethodDescriptor) -> Callable[..., Any]:
        """For a stream of requests and one response."""
        return _Method(self._connections, "stream_unary", _described(method))

    def download(self, method: MethodDescriptor) -> Callable[..., Any]:
        """For one request and a stream of responses."""
        return _Method(self._connections, "unary_stream", _described(method))

    async def is_serving(self) -> bool:
        """Whether the server says that it should be sent calls."""
        try:
            answer = await self._check(
                health_pb2.HealthCheckRequest(), timeout=HEALTH_TIMEOUT_SECONDS
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _described(method: MethodDescriptor) -> dict[str, Any]:
    return {
        "method": f"/{method.containing_service.full_name}/{method.name}",
        "request_serializer": GetMessageClass(method.input_type).SerializeToString,
        "response_deserializer": GetMessageClass(method.output_type).FromString,
    }
