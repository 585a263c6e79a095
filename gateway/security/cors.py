"""Which pages of other origins may call: exact origins, none by default.

Keys travel in `authorization` and nothing here reads a cookie, so credentials
mode is never allowed: a page can only use what it was given.
"""

from typing import Final

from gateway.problems import Problem, problem
from gateway.security.asgi import (
    ASGIApp,
    HeaderList,
    Message,
    Receive,
    Scope,
    Send,
    header,
    send_problem,
    with_headers,
)
from gateway.security.settings import ANY_ORIGIN

METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE"
ALLOWED_HEADERS: Final = (
    "accept, accept-language, authorization, cache-control, content-type, idempotency-key, "
    "if-match, if-none-match, last-event-id, traceparent, tracestate, x-request-id, "
    "x-request-timeout"
)
EXPOSED_HEADERS: Final = (
    "etag, idempotency-key, location, ratelimit, ratelimit-policy, retry-after, traceparent, "
    "x-request-id"
)
PREFLIGHT_SECONDS: Final = 600
"""How long a browser may remember an answer to its preflight."""

_VARY: Final = (b"vary", b"Origin")


class Cors:
    """Answers preflights itself, and tells browsers which origins may read the answers."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self._app = app
        self._any = ANY_ORIGIN in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin = header(scope, b"origin")
        granted = self._granted(origin)
        if origin and _is_preflight(scope):
            await _answer_preflight(send, granted)
            return

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = with_headers(message, _for_answer(granted))
            await send(message)

        await self._app(scope, receive, tell)

    def _granted(self, origin: bytes | None) -> HeaderList:
        if self._any:
            return [(b"access-control-allow-origin", b"*")]
        if origin in self._origins and origin is not None:
            return [(b"access-control-allow-origin", origin), _VARY]
        return [_VARY]


def _is_preflight(scope: Scope) -> bool:
    asked = header(scope, b"access-control-request-method")
    return scope["method"] == "OPTIONS" and asked is not None


def _is_granted(granted: HeaderList) -> bool:
    return granted[0] is not _VARY


def _for_answer(granted: HeaderList) -> HeaderList:
    if not _is_granted(granted):
        return granted
    return [*granted, (b"access-control-expose-headers", EXPOSED_HEADERS.encode())]


async def _answer_preflight(send: Send, granted: HeaderList) -> None:
    if not _is_granted(granted):
        await send_problem(send, _refusal(), granted)
        return
    headers = [
        *granted,
        (b"access-control-allow-methods", METHODS.encode()),
        (b"access-control-allow-headers", ALLOWED_HEADERS.encode()),
        (b"access-control-max-age", str(PREFLIGHT_SECONDS).encode()),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _refusal() -> Problem:
    detail = "pages of this origin may not call this API"
    return problem(403, "Forbidden", detail, reason="ORIGIN_NOT_ALLOWED")
