"""The server, as the gateway reaches it: one gRPC channel."""

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

DEFAULT_TIMEOUT_SECONDS: Final = 35.0
"""A little more than the server gives itself, whose own words are better."""
MAX_TIMEOUT_SECONDS: Final = 120.0
HEALTH_TIMEOUT_SECONDS: Final = 2.0

_HEALTH: Final = "/grpc.health.v1.Health/Check"
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", MAX_SEND_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", MIN_RECONNECT_MS),
    ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MS),
)


def connect(target: str, ca: Path | None = None, server_name: str = "") -> grpc.aio.Channel:
    """A channel to the server at `target`; connects at the first call. Needs a running loop.

    `ca`: PEM of the certificates that are trusted; without, only a server on this
    machine is spoken to in the clear, any other by the system's certificates.
    `server_name`: what its certificate says, where that is not the target's host.
    """
    local = is_loopback(target)
    options: list[tuple[str, Any]] = [*_OPTIONS, ("grpc.enable_http_proxy", int(not local))]
    if ca is None and local:
        return grpc.aio.insecure_channel(target, options=options)
    roots = ca.read_bytes() if ca is not None else None
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    credentials = grpc.ssl_channel_credentials(root_certificates=roots)
    return grpc.aio.secure_channel(target, credentials, options=options)


class Upstream:
    """Callables of the server's methods."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._check = channel.unary_unary(
            _HEALTH,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )

    def unary(self, method: MethodDescriptor) -> Callable[..., Any]:
        """For one request and one response."""
        return self._channel.unary_unary(**_described(method))

    def upload(self, method: MethodDescriptor) -> Callable[..., Any]:
        """For a stream of requests and one response."""
        return self._channel.stream_unary(**_described(method))

    def download(self, method: MethodDescriptor) -> Callable[..., Any]:
        """For one request and a stream of responses."""
        return self._channel.unary_stream(**_described(method))

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
