"""One HTTP request and its answer, below what a framework would make of them.

Starlette's Request and Response cost more than the whole transcoding.
"""

import re
from collections.abc import Iterable, Mapping
from random import getrandbits
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from gateway.refusals import Refusal, field_invalid, too_large

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
"""What the server takes in one message, and so the bound of every body that is held whole."""

HeaderList = list[tuple[bytes, bytes]]

SINGLE: Final = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"idempotency-key",
        b"if-match",
        b"last-event-id",
        b"traceparent",
        b"x-request-id",
        b"x-request-timeout",
    }
)
"""Headers that are read here and may stand once."""
LISTS: Final = frozenset({b"accept-encoding", b"if-none-match"})
"""Headers that may be divided over several lines."""
_READ: Final = SINGLE | LISTS

_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")


HEADER_PREFIX: Final = "http-"
"""Before the names of headers that go on to the server as they came."""
MAX_HEADER_BYTES_PASSED: Final = 8 * 1024
"""Of all of them. The server takes 16 KiB of metadata."""
_NEVER_PASSED: Final = frozenset({b"authorization", b"cookie", b"proxy-authorization"})
_METADATA_NAME: Final = re.compile(rb"[a-z0-9_.-]+(?<!-bin)")


class Exchange:
    """A request on its way to an answer, with what ties its traces together."""

    __slots__ = ("head", "receive", "request_id", "scope", "send", "traceparent")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.head: Mapping[bytes, str] = {}
        self.request_id = ""
        self.traceparent = ""

    def read_head(self) -> None:
        """Its headers, and the ids that go on to the server and back. A Refusal for bad ones."""
        head: dict[bytes, str] = {}
        twice = b""
        for name, value in self.scope["headers"]:
            if name not in _READ:
                continue
            if name not in head:
                head[name] = value.decode("latin-1")
            elif name in LISTS:
                head[name] += "," + value.decode("latin-1")
            else:
                twice = name
        self.head = head
        self.request_id = _request_id(head.get(b"x-request-id", ""))
        self.traceparent = _traceparent(head.get(b"traceparent", ""))
        if twice:
            raise field_invalid(twice.decode(), "stands twice in the head")

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What the server is told beside the request: whose it is, and its ids."""
        ids = (("x-request-id", self.request_id), ("traceparent", self.traceparent))
        credentials = self.head.get(b"authorization")
        if credentials is None:
            return ids
        if not _is_plain(credentials):
            raise field_invalid("authorization", "must be printable ASCII")
        return (("authorization", credentials), *ids)

    def all_headers(self) -> list[tuple[str, str]]:
        """Every header as metadata, but for credentials.

        For methods that take a body raw: who signs one (a payment provider) signs
        headers as well, and which ones only the service knows.
        """
        passed, size = [], 0
        for name, value in self.scope["headers"]:
            size += len(name) + len(value)
            if size > MAX_HEADER_BYTES_PASSED:
                break
            text = value.decode("latin-1")
            if name not in _NEVER_PASSED and _METADATA_NAME.fullmatch(name) and _is_plain(text):
                passed.append((HEADER_PREFIX + name.decode(), text))
        return passed

    async def read_body(self, limit_bytes: int = MAX_BODY_BYTES) -> bytes:
        """The whole body. A Refusal past the limit, ClientDisconnect if it never came."""
        self.refuse_coding()
        if int(self.head.get(b"content-length", "0") or 0) > limit_bytes:
            raise too_large(limit_bytes)
        chunks, size = [], 0
        more = True
        while more:
            chunk, more = await self.read_chunk()
            chunks.append(chunk)
            size += len(chunk)
            if size > limit_bytes:
                raise too_large(limit_bytes)
        return b"".join(chunks)

    async def read_chunk(self) -> tuple[bytes, bool]:
        """The next part of the body, and whether more follows. ClientDisconnect."""
        message = await self.receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        return message.get("body", b""), message.get("more_body", False)

    def refuse_coding(self) -> None:
        """A Refusal of a body that is compressed: what it unpacks to would have no bound."""
        if self.head.get(b"content-encoding", "identity").lower() != "identity":
            raise Refusal(
                415, "MEDIA_TYPE_UNSUPPORTED", "bodies are taken without a content coding"
            )

    @property
    def is_read(self) -> bool:
        """Whether it changes nothing."""
        return self.scope["method"] in {"GET", "HEAD"}

    @property
    def has_body(self) -> bool:
        """Whether one was announced."""
        names = {name for name, _ in self.scope["headers"]}
        length = self.head.get(b"content-length", "0")
        return b"transfer-encoding" in names or length.strip("0") != ""

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Status and headers; the ids go with every answer."""
        ids = [
            (b"x-request-id", self.request_id.encode()),
            (b"traceparent", self.traceparent.encode()),
        ]
        await self.send(
            {"type": "http.response.start", "status": status, "headers": [*headers, *ids]}
        )

    async def write(self, body: bytes, *, more: bool = False) -> None:
        """A part of the answer's body."""
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer(
        self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes
    ) -> None:
        """An answer whole; `headers` say its length."""
        await self.start(status, headers)
        await self.write(body)

    async def refuse(self, refusal: Refusal) -> None:
        """The answer that a refusal is."""
        status, headers, body = refusal.answer()
        await self.answer(status, headers, body)


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _request_id(given: str) -> str:
    return given if _REQUEST_ID.fullmatch(given) else f"{getrandbits(128):032x}"


def _traceparent(given: str) -> str:
    """The caller's trace with this gateway as the parent, or a trace that begins here."""
    span = f"{getrandbits(64) or 1:016x}"
    if _TRACEPARENT.fullmatch(given):
        return f"{given[:36]}{span}{given[52:]}"
    return f"00-{getrandbits(128) or 1:032x}-{span}-01"
