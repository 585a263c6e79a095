"""The connection: address, encryption, key, and typed errors on every call.

`TypedChannel` is what the generated stubs are built on. It adds the API key
and the default deadline and turns AioRpcError into ZaazError. It wraps calls
rather than being a set of grpc.aio interceptors: those cost a task for every
call, pass a stream's messages through a queue, and may only raise AioRpcError.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

import grpc

from zaaz_client.status import from_rpc_error

MAX_RECEIVE_BYTES: Final = 16 * 1024 * 1024
"""A page of 1,000 transactions with their grants passes gRPC's own 4 MiB."""
MAX_SEND_BYTES: Final = 4 * 1024 * 1024
"""What the server takes."""
KEEPALIVE_SECONDS: Final = 30
"""Well above the pace (10 s) at which servers answer pings with ENHANCE_YOUR_CALM."""
KEEPALIVE_TIMEOUT_SECONDS: Final = 10
MIN_RECONNECT_MS: Final = 100
MAX_RECONNECT_MS: Final = 5_000
"""gRPC's own two minutes would outlast any restart of a server."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", MAX_SEND_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", MIN_RECONNECT_MS),
    ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MS),
)

_T = TypeVar("_T")
_Coder = Callable[[Any], Any]


def is_loopback(target: str) -> bool:
    """Whether `target` (host:port, or with a gRPC scheme) stays on this machine."""
    scheme, colon, rest = target.partition(":")
    if colon and scheme in {"unix", "unix-abstract"}:
        return True
    if colon and scheme in {"dns", "ipv4", "ipv6"}:
        target = rest.rpartition("/")[2]
    return all(map(_is_loopback_address, target.split(",")))


def _is_loopback_address(address: str) -> bool:
    if address.startswith("["):
        host = address[1:].partition("]")[0]
    else:
        host = address.rpartition(":")[0] or address
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name, which may lead anywhere
        return False


def connect(
    target: str, api_key: str, tls: bool | bytes | None, timeout_seconds: float
) -> "TypedChannel":
    """A channel to `target`. Needs a running event loop; connects at the first call.

    `tls`: True for the system's root certificates, PEM bytes for others, False
    for none, None for the system's unless the target is on this machine.
    """
    local = is_loopback(target)
    secure = tls if tls is not None else not local
    # gRPC would send even what is for this machine through an http_proxy
    options = (*_OPTIONS, ("grpc.enable_http_proxy", int(not local)))
    if secure is False:
        inner = grpc.aio.insecure_channel(target, options=options)
    else:
        roots = secure if isinstance(secure, bytes) else None
        credentials = grpc.ssl_channel_credentials(root_certificates=roots)
        inner = grpc.aio.secure_channel(target, credentials, options=options)
    return TypedChannel(inner, api_key, timeout_seconds)


class TypedChannel(grpc.aio.Channel):
    """A channel whose calls carry the key and raise ZaazError.

    `timeout_seconds` is the deadline of unary calls that name none; streams
    have none of their own.
    """

    def __init__(self, inner: grpc.aio.Channel, api_key: str, timeout_seconds: float) -> None:
        self._inner = inner
        self._metadata = (("authorization", f"Bearer {api_key}"),)
        self._timeout_seconds = timeout_seconds

    def unary_unary(
        self,
        method: str,
        request_serializer: _Coder | None = None,
        response_deserializer: _Coder | None = None,
        **options: Any,
    ) -> grpc.aio.UnaryUnaryMultiCallable[Any, Any]:
        """As grpc.aio.Channel's."""
        start = self._inner.unary_unary(
            method, request_serializer, response_deserializer, **options
        )
        return cast(
            "grpc.aio.UnaryUnaryMultiCallable[Any, Any]",
            self._typed(start, _AwaitedCall, self._timeout_seconds),
        )

    def unary_stream(
        self,
        method: str,
        request_serializer: _Coder | None = None,
        response_deserializer: _Coder | None = None,
        **options: Any,
    ) -> grpc.aio.UnaryStreamMultiCallable[Any, Any]:
        """As grpc.aio.Channel's."""
        start = self._inner.unary_stream(
            method, request_serializer, response_deserializer, **options
        )
        return cast(
            "grpc.aio.UnaryStreamMultiCallable[Any, Any]", self._typed(start, _StreamCall, None)
        )

    def stream_unary(
        self,
        method: str,
        request_serializer: _Coder | None = None,
        response_deserializer: _Coder | None = None,
        **options: Any,
    ) -> grpc.aio.StreamUnaryMultiCallable[Any, Any]:
        """As grpc.aio.Channel's."""
        start = self._inner.stream_unary(
            method, request_serializer, response_deserializer, **options
        )
        return cast(
            "grpc.aio.StreamUnaryMultiCallable[Any, Any]", self._typed(start, _AwaitedCall, None)
        )

    def stream_stream(
        self,
        method: str,
        request_serializer: _Coder | None = None,
        response_deserializer: _Coder | None = None,
        **options: Any,
    ) -> grpc.aio.StreamStreamMultiCallable[Any, Any]:
        """As grpc.aio.Channel's."""
        start = self._inner.stream_stream(
            method, request_serializer, response_deserializer, **options
        )
        return cast(
            "grpc.aio.StreamStreamMultiCallable[Any, Any]", self._typed(start, _StreamCall, None)
        )

    def _typed(
        self, start: Callable[..., Any], wrap: type["_Call"], timeout_seconds: float | None
    ) -> Callable[..., "_Call"]:
        def call(
            *requests: Any,
            timeout: float | None = timeout_seconds,
            metadata: Iterable[tuple[str, str | bytes]] | None = None,
            **options: Any,
        ) -> "_Call":
            sent = (*self._metadata, *(metadata or ()))
            return wrap(start(*requests, timeout=timeout, metadata=sent, **options))

        return call

    async def close(self, grace: float | None = None) -> None:
        """Close the connection; open calls are cancelled after `grace` seconds."""
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """As grpc.aio.Channel's."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """As grpc.aio.Channel's."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until connected, for as long as it takes."""
        await self._inner.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()


class _Call:
    """A running call; everything but waiting for its peer is grpc.aio's own."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _AwaitedCall(_Call):
    """A call with one response."""

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from self._inner.__await__())
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error


class _StreamCall(_Call):
    """A call with a stream of responses."""

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for response in self._inner:
                yield response
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def read(self) -> Any:
        """The next response, or grpc.aio.EOF."""
        return await _translated(self._inner.read())

    async def write(self, request: Any) -> None:
        """Send a request; waits while the peer's window is full."""
        await _translated(self._inner.write(request))


async def _translated(step: Awaitable[_T]) -> _T:
    try:
        return await step
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
