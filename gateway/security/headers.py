"""Strict headers on every answer, errors too."""

from typing import Final

from gateway.security.asgi import ASGIApp, HeaderList, Message, Receive, Scope, Send, with_headers

API_POLICY: Final = (
    b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""An API's answer is never a page: a browser that shows it loads and runs nothing."""

ALWAYS: Final[HeaderList] = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]

UNLESS_SET: Final[HeaderList] = [
    (b"content-security-policy", API_POLICY),
    (b"cache-control", b"no-store"),
]
"""What an application may know better: a page has a policy of its own, an asset may be kept."""

HSTS: Final = (b"strict-transport-security", b"max-age=31536000")

_REPLACED: Final = frozenset({name for name, _ in ALWAYS} | {HSTS[0], b"server"})


class StrictHeaders:
    """Adds the headers above, and names no server."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Read now: a trusted proxy's word on the scheme has come in meanwhile.
                message = _strict(message, encrypted=scope["scheme"] == "https")
            await send(message)

        await self._app(scope, receive, strict)


def _strict(message: Message, *, encrypted: bool) -> Message:
    kept = [(name, value) for name, value in message.get("headers", ()) if name not in _REPLACED]
    known = {name for name, _ in kept}
    added = [*ALWAYS, *(each for each in UNLESS_SET if each[0] not in known)]
    if encrypted:
        added.append(HSTS)
    return with_headers({**message, "headers": kept}, added)
