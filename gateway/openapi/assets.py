"""Bytes that never change while the process runs, served from memory."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Final

from starlette.types import Receive, Scope, Send

from gateway.compression import coding_for, compress
from gateway.refusals import Refusal

REVALIDATE: Final = b"no-cache"
"""Kept by browsers, and asked for again with its tag each time."""

_READ: Final = frozenset({"GET", "HEAD"})
_TAG_BYTES: Final = 12

HeaderList = list[tuple[bytes, bytes]]


class Asset:
    """Answers GET with bytes that are made at the first request, and compressed once a coding."""

    def __init__(self, make: Callable[[], bytes], content_type: str, policy: str = "") -> None:
        """`policy`: a Content-Security-Policy of its own; "" leaves the strictest."""
        self._make = make
        self._fixed: HeaderList = [
            (b"content-type", content_type.encode()),
            (b"cache-control", REVALIDATE),
            (b"vary", b"Accept-Encoding"),
        ]
        if policy:
            self._fixed.append((b"content-security-policy", policy.encode()))
        self._made: dict[str, bytes] = {}
        self._making = asyncio.Lock()

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["method"] not in _READ:
            await _send(send, *_not_allowed().answer())
            return
        given = dict(scope["headers"])
        coding = coding_for(given.get(b"accept-encoding", b"").decode("latin-1"))
        body = await self._coded(coding)
        tag = f'"{hashlib.blake2b(body, digest_size=_TAG_BYTES).hexdigest()}"'.encode()
        headers = [*self._fixed, (b"etag", tag)]
        if tag in given.get(b"if-none-match", b""):
            await _send(send, 304, headers, b"")
            return
        if coding:
            headers.append((b"content-encoding", coding.encode()))
        headers.append((b"content-length", str(len(body)).encode()))
        await _send(send, 200, headers, body if scope["method"] == "GET" else b"")

    async def _coded(self, coding: str) -> bytes:
        """The bytes in that coding. Off the loop: a megabyte takes a tenth of a second."""
        async with self._making:
            if "" not in self._made:
                self._made[""] = await asyncio.to_thread(self._make)
            if coding not in self._made:
                self._made[coding] = await asyncio.to_thread(compress, self._made[""], coding)
            return self._made[coding]


def _not_allowed() -> Refusal:
    detail = "this is read with GET"
    return Refusal(405, "VERB_NOT_ALLOWED", detail, headers=((b"allow", b"GET, HEAD"),))


async def _send(send: Send, status: int, headers: HeaderList, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
