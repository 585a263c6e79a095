"""What every middleware here needs: headers in, headers out, a problem as an answer."""

from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.problems import Problem

__all__ = [
    "ASGIApp",
    "HeaderList",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "header",
    "headers",
    "send_problem",
    "with_headers",
]

HeaderList = list[tuple[bytes, bytes]]


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that name (lower case); None without one."""
    return next((value for key, value in scope["headers"] if key == name), None)


def headers(scope: Scope, name: bytes) -> list[bytes]:
    """Every header of that name (lower case), in order."""
    return [value for key, value in scope["headers"] if key == name]


def with_headers(message: Message, added: Iterable[tuple[bytes, bytes]]) -> Message:
    """An answer's start with more headers."""
    return {**message, "headers": [*message.get("headers", ()), *added]}


async def send_problem(
    send: Send, problem: Problem, added: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Answers with `problem`."""
    status, own, body = problem
    start = {"type": "http.response.start", "status": status, "headers": [*own, *added]}
    await send(start)
    await send({"type": "http.response.body", "body": body})
