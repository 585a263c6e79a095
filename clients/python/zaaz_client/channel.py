"""The connection: address, encryption, key, and typed errors on every call.

`TypedChannel` is what the generated stubs are built on. It adds the newest API
key and the default deadline, picks the newest connection, and turns
AioRpcError into ZaazError. It wraps calls
rather than being a set of grpc.aio interceptors: those cost a task for every
call, pass a stream's messages through a queue, and may only raise AioRpcError.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from functools import partial
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar, cast

import grpc

from zaaz_client.api_key import Authorization, KeyMetadata
from zaaz_client.connections import Connection, Connections
from zaaz_client.errors import KeyReplaced, ZaazError
from zaaz_client.observing import CallWatch, Telemetry, tell_the_end
from zaaz_client.status import from_rpc_error
from zaaz_client.tls import Tls, TlsSource

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
_Coder: TypeAlias = Callable[[Any], Any]
_Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]


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
    target: str,
    authorization: Authorization,
    tls: bool | bytes | Tls | None,
    timeout_seconds: float,
    telemetry: Telemetry | None = None,
) -> "TypedChannel":
    """A channel to `target`. Needs a running event loop; connects at the first call.

    `tls`: True for the system's root certificates, PEM bytes for others, a Tls
    for files and for a certificate of one's own, False for none, None for the
    system's unless the target is on this machine. OSError or ValueError for
    what cannot be used.
    """
    local = is_loopback(target)
    secure = tls if tls is not None else not local
    # gRPC would send even what is for this machine through an http_proxy
    options = (*_OPTIONS, ("grpc.enable_http_proxy", int(not local)))

    def open_(credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
        if credentials is None:
            return grpc.aio.insecure_channel(target, options=options)
        return grpc.aio.secure_channel(target, credentials, options=options)

    source = None if secure is False else TlsSource(_as_tls(secure))
    return TypedChannel(
        Connections(open_, source), authorization, timeout_seconds, target, telemetry
    )


def _as_tls(secure: bool | bytes | Tls) -> Tls:
    if isinstance(secure, Tls):
        return secure
    return Tls(roots=secure if isinstance(secure, bytes) else None)


class TypedChannel(grpc.aio.Channel):
    """A channel whose calls carry the key and raise ZaazError.

    `timeout_seconds` is the deadline of unary calls that name none; streams
    have none of their own.

    A unary call that is refused for its key is made once more if there is
    another key by then; a stream raises KeyReplaced.
    """

    def __init__(
        self,
        connections: Connections,
        authorization: Authorization,
        timeout_seconds: float,
        target: str,
        telemetry: Telemetry | None,
    ) -> None:
        self._connections = connections
        self._authorization = authorization
        self._timeout_seconds = timeout_seconds
        self._target = target
        self._telemetry = telemetry

    def unary_unary(
        self,
        method: str,
        request_serializer: _Coder | None = None,
        response_deserializer: _Coder | None = None,
        **options: Any,
    ) -> grpc.aio.UnaryUnaryMultiCallable[Any, Any]:
        """As grpc.aio.Channel's."""
        coders = (request_serializer, response_deserializer)
        caller = self._caller("unary_unary", method, coders, options)
        default_seconds = self._timeout_seconds

        def call(
            request: Any,
            *,
            timeout: float | None = default_seconds,
            metadata: _Metadata | None = None,
            **options: Any,
        ) -> _UnaryCall:
            return _UnaryCall(caller, request, timeout, metadata, options)

        return cast("grpc.aio.UnaryUnaryMultiCallable[Any, Any]", call)

    def unary_stream(
        self,
        method: str,
        request_serializer: _Coder | None = None,
        response_deserializer: _Coder | None = None,
        **options: Any,
    ) -> grpc.aio.UnaryStreamMultiCallable[Any, Any]:
        """As grpc.aio.Channel's."""
        coders = (request_serializer, response_deserializer)
        caller = self._caller("unary_stream", method, coders, options)
        return cast("grpc.aio.UnaryStreamMultiCallable[Any, Any]", _starting(caller, _StreamCall))

    def stream_unary(
        self,
        method: str,
        request_serializer: _Coder | None = None,
        response_deserializer: _Coder | None = None,
        **options: Any,
    ) -> grpc.aio.StreamUnaryMultiCallable[Any, Any]:
        """As grpc.aio.Channel's."""
        coders = (request_serializer, response_deserializer)
        caller = self._caller("stream_unary", method, coders, options)
        return cast("grpc.aio.StreamUnaryMultiCallable[Any, Any]", _starting(caller, _AwaitedCall))

    def stream_stream(
        self,
        method: str,
        request_serializer: _Coder | None = None,
        response_deserializer: _Coder | None = None,
        **options: Any,
    ) -> grpc.aio.StreamStreamMultiCallable[Any, Any]:
        """As grpc.aio.Channel's."""
        coders = (request_serializer, response_deserializer)
        caller = self._caller("stream_stream", method, coders, options)
        return cast("grpc.aio.StreamStreamMultiCallable[Any, Any]", _starting(caller, _StreamCall))

    def _caller(
        self,
        kind: str,
        method: str,
        coders: tuple[_Coder | None, _Coder | None],
        options: dict[str, Any],
    ) -> "_Caller":
        def bind(channel: grpc.aio.Channel) -> Callable[..., Any]:
            bound: Callable[..., Any] = getattr(channel, kind)(method, *coders, **options)
            return bound

        watch = None
        if self._telemetry is not None:
            watch = partial(self._telemetry.started, self._target, method.removeprefix("/"))
        return _Caller(self._connections, self._authorization, bind, watch)

    async def close(self, grace: float | None = None) -> None:
        """Close the connection; open calls are cancelled."""
        await self._connections.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """As grpc.aio.Channel's."""
        return self._connections.newest().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """As grpc.aio.Channel's."""
        await self._connections.newest().channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until connected, for as long as it takes."""
        await self._connections.newest().channel.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()


class _Caller:
    """Makes the calls of one method: on the newest connection, with the newest key."""

    def __init__(
        self,
        connections: Connections,
        authorization: Authorization,
        bind: Callable[[grpc.aio.Channel], Callable[..., Any]],
        watch: Callable[[], CallWatch] | None,
    ) -> None:
        self.authorization = authorization
        self._connections = connections
        self._bind = bind
        self._watch = watch
        self._connection: Connection | None = None
        self._start: Callable[..., Any]

    def call(
        self,
        requests: tuple[Any, ...],
        timeout: float | None,
        metadata: _Metadata | None,
        options: dict[str, Any],
    ) -> tuple[Any, KeyMetadata]:
        """grpc.aio's call, and the key that it carries."""
        connection = self._connections.newest()
        if connection is not self._connection:
            self._connection, self._start = connection, self._bind(connection.channel)
        key = self.authorization.metadata()
        sent = (*key, *(metadata or ()))
        if self._watch is None:
            call = self._start(*requests, timeout=timeout, metadata=sent, **options)
        else:
            watch = self._watch()
            sent += tuple(watch.metadata)
            call = self._start(*requests, timeout=timeout, metadata=sent, **options)
            call.add_done_callback(partial(tell_the_end, watch))
        connection.carry(call)
        return call, key


def _starting(caller: _Caller, wrap: type["_KeyedCall"]) -> Callable[..., "_KeyedCall"]:
    def call(
        *requests: Any,
        timeout: float | None = None,
        metadata: _Metadata | None = None,
        **options: Any,
    ) -> _KeyedCall:
        return wrap(caller, *caller.call(requests, timeout, metadata, options))

    return call


class _Call:
    """A running call; everything but waiting for its peer is grpc.aio's own."""

    _inner: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _UnaryCall(_Call):
    """A call with one request and one response."""

    def __init__(
        self,
        caller: _Caller,
        request: Any,
        timeout: float | None,
        metadata: _Metadata | None,
        options: dict[str, Any],
    ) -> None:
        self._caller = caller
        self._again = (request, metadata, options)
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._inner, self._key = caller.call((request,), timeout, metadata, options)

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from self._inner.__await__())
        except grpc.aio.AioRpcError as error:
            typed = from_rpc_error(error)
            if not self._caller.authorization.is_replaced(self._key, typed):
                raise typed from error
        self._repeat()
        try:
            return (yield from self._inner.__await__())
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    def _repeat(self) -> None:
        request, metadata, options = self._again
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        self._inner, self._key = self._caller.call((request,), left, metadata, options)


class _KeyedCall(_Call):
    """A call that streams."""

    def __init__(self, caller: _Caller, inner: Any, key: KeyMetadata) -> None:
        self._caller = caller
        self._inner = inner
        self._key = key

    def _typed(self, error: grpc.aio.AioRpcError) -> ZaazError:
        typed = from_rpc_error(error)
        if self._caller.authorization.is_replaced(self._key, typed):
            return KeyReplaced(f"there is another API key by now: {typed}")
        return typed


class _AwaitedCall(_KeyedCall):
    """A call with one response."""

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from self._inner.__await__())
        except grpc.aio.AioRpcError as error:
            raise self._typed(error) from error


class _StreamCall(_KeyedCall):
    """A call with a stream of responses."""

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for response in self._inner:
                yield response
        except grpc.aio.AioRpcError as error:
            raise self._typed(error) from error

    async def read(self) -> Any:
        """The next response, or grpc.aio.EOF."""
        return await self._translated(self._inner.read())

    async def write(self, request: Any) -> None:
        """Send a request; waits while the peer's window is full."""
        await self._translated(self._inner.write(request))

    async def _translated(self, step: Awaitable[_T]) -> _T:
        try:
            return await step
        except grpc.aio.AioRpcError as error:
            raise self._typed(error) from error
