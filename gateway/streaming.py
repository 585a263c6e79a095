"""Raw bytes in and out, a piece at a time: files, and bodies that are not JSON.

A method serves them by its annotation alone:

    stream of requests, body: a `bytes` or HttpBody field     Upload
    stream of responses that are HttpBody, or response_body   Download
    names a `bytes` or HttpBody field

An upload's first request has the fields of the path and the query, every further
one a piece of the body. Each piece waits until gRPC has taken the one before, so
a slow server slows the client down. A download's pieces wait for its client.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from gateway.binding import HTTP_BODY, WHOLE, Binding
from gateway.encoding import Encoders
from gateway.exchange import Exchange, HeaderList
from gateway.refusals import of_call, too_large
from gateway.routes import Route
from gateway.unary import content_type_of, renderer, timeout_seconds
from gateway.upstream import Upstream

CHUNK_BYTES: Final = 64 * 1024
"""So large is a piece of an upload at most."""
MAX_UPLOAD_BYTES: Final = 1024 * 1024 * 1024
MAX_STREAM_SECONDS: Final = 3_600.0
"""So long an upload or a download may take whose caller names no time."""

LENGTH_KEY: Final = "x-content-length"
"""Metadata of an upload's call."""

_PASSED_ON: Final = frozenset({"cache-control", "content-disposition", "last-modified"})
"""Headers that a download takes from its call's initial metadata, and content-length."""

_OCTETS: Final = b"application/octet-stream"
_log = logging.getLogger(__name__)


class Upload:
    """The endpoint of a route whose method takes a stream of pieces and gives one message."""

    def __init__(
        self, route: Route, binding: Binding, encoders: Encoders, upstream: Upstream
    ) -> None:
        """ValueError if the body of the route is no field for bytes."""
        self._binding = binding
        self._piece = _piece_maker(route.method.input_type, route.body)
        self._call = upstream.upload(route.method)
        self._render = renderer(route, encoders)

    async def __call__(self, exchange: Exchange, segments: Sequence[str]) -> None:
        """Answers. `segments` are the path's as they were sent."""
        exchange.refuse_coding()
        opening, key = self._binding.bind_opening(exchange, segments)
        call = self._call(
            timeout=timeout_seconds(exchange, MAX_STREAM_SECONDS),
            metadata=(*exchange.metadata(), *_length(exchange)),
        )
        headers: HeaderList = [(b"idempotency-key", key.encode())] if key else []
        try:
            await self._send(call, opening, exchange)
            content_type, body = self._render(await call)
        except grpc.aio.AioRpcError as error:
            refusal = of_call(error)
            refusal.headers = (*refusal.headers, *headers)
            raise refusal from None
        finally:
            call.cancel()
        length = (b"content-length", str(len(body)).encode())
        await exchange.answer(200, [content_type, length, *headers], body)

    async def _send(self, call: Any, opening: Any, exchange: Exchange) -> None:
        """The whole body, piece by piece, as far as the call lasts: its status says why not."""
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await call.write(opening)
            async for piece in _pieces(exchange):
                await call.write(self._piece(piece, exchange))
            await call.done_writing()


class Download:
    """The endpoint of a route whose method takes one message and gives a stream of pieces."""

    def __init__(self, route: Route, binding: Binding, upstream: Upstream) -> None:
        self._binding = binding
        self._call = upstream.download(route.method)
        self._take = _piece_taker(route.method.output_type, route.response_body)

    async def __call__(self, exchange: Exchange, segments: Sequence[str]) -> None:
        """Answers. `segments` are the path's as they were sent."""
        request, _ = await self._binding.bind(exchange, segments)
        call = self._call(
            request,
            timeout=timeout_seconds(exchange, MAX_STREAM_SECONDS),
            metadata=exchange.metadata(),
        )
        try:
            content_type, piece = self._take(await call.read())
            headers = _headers_of(await call.initial_metadata())
        except grpc.aio.AioRpcError as error:
            raise of_call(error) from None
        except BaseException:
            call.cancel()
            raise
        async with _until_gone(exchange, call):
            await exchange.start(200, [(b"content-type", content_type), *headers])
            if exchange.scope["method"] != "HEAD":
                await self._pass_on(exchange, call, piece)
            await exchange.write(b"")

    async def _pass_on(self, exchange: Exchange, call: Any, piece: bytes) -> None:
        message = None
        while message is not grpc.aio.EOF:
            if piece:
                await exchange.write(piece, more=True)
            message = await call.read()
            _, piece = self._take(message)


def is_upload(route: Route) -> bool:
    """Whether the route takes raw bytes as a stream."""
    method = route.method
    return method.client_streaming and not method.server_streaming


def is_download(route: Route) -> bool:
    """Whether the route gives raw bytes as a stream."""
    method, output = route.method, route.method.output_type
    if method.client_streaming or not method.server_streaming:
        return False
    return output.full_name == HTTP_BODY or _holds_bytes(output, route.response_body)


def _holds_bytes(message: Descriptor, name: str) -> bool:
    field = message.fields_by_name.get(name)
    return field is not None and (
        field.type == FieldDescriptor.TYPE_BYTES or _is_http_body(field.message_type)
    )


def _is_http_body(message: Descriptor | None) -> bool:
    return message is not None and message.full_name == HTTP_BODY


def _piece_maker(request: Descriptor, body: str) -> Callable[[bytes, Exchange], Any]:
    new = GetMessageClass(request)
    if body == WHOLE and _is_http_body(request):
        return lambda piece, exchange: new(content_type=_content_type(exchange), data=piece)
    if not _holds_bytes(request, body):
        raise ValueError(f"the body of {request.full_name} must be a field for bytes")
    if request.fields_by_name[body].message_type is None:
        return lambda piece, _exchange: new(**{body: piece})
    return lambda piece, exchange: new(
        **{body: {"content_type": _content_type(exchange), "data": piece}}
    )


def _length(exchange: Exchange) -> tuple[tuple[str, str], ...]:
    """The size that the client announced, if it did.

    To a grpc.aio servicer a cancelled stream may look like one that has ended: this tells.
    """
    length = exchange.head.get(b"content-length")
    return () if length is None else ((LENGTH_KEY, length),)


def _content_type(exchange: Exchange) -> str:
    return exchange.head.get(b"content-type", _OCTETS.decode())


async def _pieces(exchange: Exchange) -> AsyncIterator[bytes]:
    size, more = 0, True
    while more:
        chunk, more = await exchange.read_chunk()
        size += len(chunk)
        if size > MAX_UPLOAD_BYTES:
            raise too_large(MAX_UPLOAD_BYTES)
        for start in range(0, len(chunk), CHUNK_BYTES):
            yield chunk[start : start + CHUNK_BYTES]


def _piece_taker(response: Descriptor, body: str) -> Callable[[Any], tuple[bytes, bytes]]:
    """What reads content type and bytes of a message of the stream, or of its end."""

    def take(message: Any) -> tuple[bytes, bytes]:
        if message is grpc.aio.EOF:
            return _OCTETS, b""
        value = message if _is_http_body(response) else getattr(message, body)
        if isinstance(value, bytes):
            return _OCTETS, value
        return content_type_of(value)[1], value.data

    return take


def _headers_of(metadata: Any) -> HeaderList:
    headers = []
    for name, value in metadata or ():
        if name == "content-length" and value.isascii() and value.isdigit():
            headers.append((b"content-length", value.encode()))
        elif name in _PASSED_ON and value.isascii() and value.isprintable():
            headers.append((name.encode(), value.encode()))
    return headers


@asynccontextmanager
async def _until_gone(exchange: Exchange, call: Any) -> AsyncIterator[None]:
    """Ends the call with the block, or when the client goes.

    A call that fails in the middle leaves the answer unfinished: the connection
    ends, and the client can tell that it has not got everything.
    """
    watch = asyncio.create_task(_end_when_gone(exchange, call))
    try:
        yield
    except (asyncio.CancelledError, grpc.aio.AioRpcError) as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        _log.warning("a download broke off", extra={"fields": {"error": type(error).__name__}})
    finally:
        watch.cancel()
        call.cancel()


async def _end_when_gone(exchange: Exchange, call: Any) -> None:
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
    call.cancel()
