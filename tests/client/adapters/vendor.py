"""A vendor on this machine: a real HTTP server that answers as its script says.

It speaks as OpenAI and Anthropic do, and keeps what it was asked.
"""

import asyncio
import contextlib
import json
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Body = dict[str, Any]


class CutError(Exception):
    """Makes the server drop the connection in the middle of a body."""


@dataclass(frozen=True)
class Whole:
    """A JSON answer."""

    body: Body
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Events:
    """A stream of server-sent events: then its end, a cut connection, or nothing more for ever."""

    frames: Sequence[str]
    cut: bool = False
    hangs: bool = False


@dataclass(frozen=True)
class Asked:
    """A request."""

    path: str
    body: Body
    headers: dict[str, str]


class Vendor:
    """Answers with its script, in order. `left` counts the streams whose reader has gone."""

    def __init__(self) -> None:
        self.port = 0
        self.script: deque[Whole | Events] = deque()
        self.asked: list[Asked] = []
        self.left = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answers(self, *script: Whole | Events) -> None:
        self.script.extend(script)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self._answer, methods=["POST"])])

    async def _answer(self, request: Request) -> Response:
        path = "/" + request.path_params["path"]
        self.asked.append(Asked(path, await request.json(), dict(request.headers)))
        answer = self.script.popleft()
        if isinstance(answer, Whole):
            headers = {"x-request-id": f"req_{len(self.asked)}", **answer.headers}
            return JSONResponse(answer.body, answer.status, headers)
        return StreamingResponse(self._told(answer), media_type="text/event-stream")

    async def _told(self, answer: Events) -> AsyncIterator[str]:
        try:
            for frame in answer.frames:
                yield frame
            if answer.hangs:
                await asyncio.Event().wait()
        except (asyncio.CancelledError, GeneratorExit):
            self.left += 1
            raise
        if answer.cut:
            raise CutError


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def selling() -> AsyncIterator[Vendor]:
    """A vendor on a free port."""
    vendor = Vendor()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        vendor.port = listener.getsockname()[1]
        config = uvicorn.Config(
            vendor.app(), lifespan="off", log_config=None, timeout_graceful_shutdown=1
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield vendor
        finally:
            server.should_exit = True
            await task


def data(body: Body) -> str:
    """A frame as OpenAI's chat completions have it."""
    return f"data: {json.dumps(body)}\n\n"


def named(body: Body) -> str:
    """A frame as OpenAI's responses and Anthropic's messages have it."""
    return f"event: {body['type']}\ndata: {json.dumps(body)}\n\n"


DONE = "data: [DONE]\n\n"
