"""Whether this process lives, and whether it can serve."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.refusals import Refusal, unavailable
from gateway.upstream import Upstream

FRESH_SECONDS: Final = 1.0
"""So long an answer of the server's health counts; it looks no oftener itself.

Probes are not rate-limited, and must not become a way to make calls.
"""

_OK: Final = b'{"status":"ok"}'
_HEADERS: Final = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_OK)).encode()),
]


def health_pages(upstream: Upstream) -> Mapping[str, ASGIApp]:
    """`/healthz`: the process answers. `/readyz`: the server behind it is serving."""

    ready = Readiness(upstream.is_serving)

    async def healthz(scope: Scope, _receive: Receive, send: Send) -> None:
        await _answer(scope, send, is_well=True)

    async def readyz(scope: Scope, _receive: Receive, send: Send) -> None:
        await _answer(scope, send, is_well=await ready())

    return {"/healthz": healthz, "/readyz": readyz}


class Readiness:
    """Asks at most once in FRESH_SECONDS, however many want to know."""

    def __init__(
        self, ask: Callable[[], Awaitable[bool]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = asyncio.Lock()
        self._is_well = False
        self._until = float("-inf")

    async def __call__(self) -> bool:
        """Whether the server serves, as of FRESH_SECONDS ago at most."""
        async with self._lock:
            if self._clock() >= self._until:
                self._is_well = await self._ask()
                self._until = self._clock() + FRESH_SECONDS
            return self._is_well


async def _answer(scope: Scope, send: Send, *, is_well: bool) -> None:
    status, headers, body = 200, _HEADERS, _OK
    if scope["method"] not in {"GET", "HEAD"}:
        not_allowed = Refusal(
            405, "VERB_NOT_ALLOWED", "this is read with GET", headers=((b"allow", b"GET, HEAD"),)
        )
        status, headers, body = not_allowed.answer()
    elif not is_well:
        status, headers, body = unavailable().answer()
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
