"""A small application behind the gateway's security, on a real uvicorn, and a raw socket to it."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.security import SecuritySettings, hardened, secured

PATIENCE_SECONDS = 20
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass
class Seen:
    """What reached the application."""

    paths: list[str] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)
    body_bytes: int = 0


class EchoApp:
    """Reads the body and answers with its length; some paths behave otherwise."""

    def __init__(self) -> None:
        self.seen = Seen()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.seen.paths.append(scope["path"])
        self.seen.clients.append(scope["client"][0])
        if scope["path"] == "/fails":
            raise RuntimeError("a secret of the house")
        total = await self._read(receive)
        if scope["path"] == "/fails-late":
            await _start(send, b"")
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            raise RuntimeError("a secret of the house")
        if scope["path"] == "/much":
            await _much(send)
            return
        await _start(send, b"%d" % len(str(total)))
        await send({"type": "http.response.body", "body": str(total).encode()})

    async def _read(self, receive: Receive) -> int:
        total = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("the client is gone")
            total += len(message.get("body", b""))
            self.seen.body_bytes += len(message.get("body", b""))
            if not message.get("more_body"):
                return total


async def _start(send: Send, length: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"server", b"echo/1.0")]
    if length:
        headers.append((b"content-length", length))
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _much(send: Send) -> None:
    """More than the kernel's buffers hold."""
    await _start(send, b"")
    for _ in range(1_000):
        await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})


@dataclass
class Host:
    """Where it listens, and what it has seen."""

    address: tuple[str, int]
    seen: Seen
    server: uvicorn.Server

    async def exchange(self, *parts: bytes) -> bytes:
        """Everything that comes back until the server closes; parts are sent one by one."""
        async with self.open() as (reader, writer):
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await read_all(reader)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A raw connection."""
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            yield reader, writer
        finally:
            writer.close()

    def is_empty(self) -> bool:
        """Whether the server has no connection."""
        return not self.server.server_state.connections

    async def closed(self) -> None:
        """Returns once the server has no connection left."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self.is_empty():  # noqa: ASYNC110 - uvicorn tells nobody
                await asyncio.sleep(0.01)


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """What comes until the end of the connection, however it ends."""
    taken = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            while part := await reader.read(65_536):
                taken += part
        except ConnectionResetError:
            pass
    return taken


async def read_until(reader: asyncio.StreamReader, end: bytes) -> bytes:
    """What comes until `end`."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await reader.readuntil(end)


def statuses(answer: bytes) -> list[int]:
    """The status of each answer on a connection."""
    return [int(status) for status in STATUS.findall(answer)]


@asynccontextmanager
async def hosting(settings: SecuritySettings | None = None) -> AsyncIterator[Host]:
    """The application on a port of its own."""
    settings = settings or SecuritySettings()
    app = EchoApp()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        secured(app, settings), lifespan="off", log_config=None, **hardened(settings)
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve([listener]))
    try:
        yield Host(listener.getsockname(), app.seen, server)
    finally:
        server.should_exit = server.force_exit = True
        await serving


@dataclass
class Answer:
    """What a middleware sent."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


async def call(app: ASGIApp, path: str = "/", method: str = "GET", **given: Any) -> Answer:
    """One request to `app` without a connection. `headers` is a mapping, `client` an address."""
    given_headers: dict[str, str] = given.get("headers", {})
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "scheme": given.get("scheme", "http"),
        "client": (given.get("client", "192.0.2.1"), 40_000),
        "headers": [(name.encode(), value.encode()) for name, value in given_headers.items()],
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    headers = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
    return Answer(sent[0]["status"], headers, b"".join(each.get("body", b"") for each in sent))
