"""One request, one call, one answer."""

import re
from collections.abc import Sequence
from typing import Any, Final

import grpc
from google.api import httpbody_pb2

from gateway import compression, preconditions
from gateway.binding import HTTP_BODY, Binding
from gateway.encoding import Encode, Encoders, to_bytes
from gateway.exchange import Exchange, HeaderList
from gateway.refusals import field_invalid, of_call
from gateway.routes import Route
from gateway.upstream import DEFAULT_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS, Upstream

_JSON_TYPE: Final = (b"content-type", b"application/json")
_VARY: Final = (b"vary", b"accept-encoding")
_REVALIDATE: Final = (b"cache-control", b"private, no-cache")
_SECONDS: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")
_OK, _NOT_MODIFIED = 200, 304


class Unary:
    """The endpoint of a route whose method takes one message and gives one."""

    def __init__(
        self, route: Route, binding: Binding, encoders: Encoders, upstream: Upstream
    ) -> None:
        self._binding = binding
        self._call = upstream.unary(route.method)
        self._render = renderer(route, encoders)
        self._etag = preconditions.etag_of(route.method.output_type)

    async def __call__(self, exchange: Exchange, segments: Sequence[str]) -> None:
        """Answers. `segments` are the path's as they were sent."""
        request, key = await self._binding.bind(exchange, segments)
        metadata = exchange.metadata()
        if self._binding.takes_raw_body:
            metadata = (*metadata, *exchange.all_headers())
        named = [(b"idempotency-key", key.encode())] if key else []
        try:
            response = await self._call(
                request, timeout=timeout_seconds(exchange), metadata=metadata
            )
        except grpc.aio.AioRpcError as error:
            refusal = of_call(error)
            refusal.headers = (*refusal.headers, *named)
            raise refusal from None
        content_type, body = self._render(response)
        etag = self._etag(response) if self._etag is not None else ""
        await _answer(exchange, body, etag, [content_type, *named])


async def _answer(exchange: Exchange, body: bytes, etag: str, headers: HeaderList) -> None:
    """`body`, compressed where that pays; or nothing, if the client has it."""
    head = exchange.head
    if len(body) >= compression.MIN_BYTES:
        headers.append(_VARY)
        coding = compression.coding_for(head.get(b"accept-encoding", ""))
        if coding:
            body = compression.compress(body, coding)
            headers.append((b"content-encoding", coding.encode()))
    tag = preconditions.entity_tag(etag, body)
    if tag:
        headers += [(b"etag", tag.encode()), _REVALIDATE]
        unless = head.get(b"if-none-match")
        if unless is not None and exchange.is_read and preconditions.matches(unless, tag):
            await exchange.answer(_NOT_MODIFIED, headers, b"")
            return
    headers.append((b"content-length", str(len(body)).encode()))
    await exchange.answer(_OK, headers, body)


def timeout_seconds(exchange: Exchange, default: float = DEFAULT_TIMEOUT_SECONDS) -> float:
    """How long the caller waits: X-Request-Timeout in seconds, or `default`."""
    given = exchange.head.get(b"x-request-timeout")
    if given is None:
        return default
    seconds = float(given) if _SECONDS.fullmatch(given) else 0.0
    if not 0 < seconds <= MAX_TIMEOUT_SECONDS:
        limit = f"above 0 and up to {MAX_TIMEOUT_SECONDS:g}"
        raise field_invalid("x-request-timeout", f"must be seconds {limit}, as in 2.5")
    return seconds


def renderer(route: Route, encoders: Encoders) -> Any:
    """What makes content type and body of a response."""
    output = route.method.output_type
    if output.full_name == HTTP_BODY:
        return lambda response: _raw(response)
    if not route.response_body:
        encode: Encode = encoders.message(output)
        return lambda response: (_JSON_TYPE, to_bytes(encode(response)))
    field = output.fields_by_name[route.response_body]
    name = field.name
    if field.message_type is not None and field.message_type.full_name == HTTP_BODY:
        return lambda response: _raw(getattr(response, name))
    encode = encoders.field(field)
    return lambda response: (_JSON_TYPE, to_bytes(encode(getattr(response, name))))


def _raw(body: httpbody_pb2.HttpBody) -> tuple[tuple[bytes, bytes], bytes]:
    return content_type_of(body), body.data


def content_type_of(body: httpbody_pb2.HttpBody) -> tuple[bytes, bytes]:
    """The header that an HttpBody asks for."""
    given = body.content_type
    sane = given and given.isascii() and given.isprintable()
    return (b"content-type", given.encode() if sane else b"application/octet-stream")
