"""How much a request may hold: refused by what it announces, and again by what it sends."""

from collections.abc import Sequence

from gateway.problems import Problem, problem
from gateway.security.asgi import ASGIApp, Message, Receive, Scope, Send, header, send_problem


class BodyLimit:
    """Answers 413 to larger bodies. Nothing is held back here: bodies stream through."""

    def __init__(
        self, app: ASGIApp, limit_bytes: int, by_path: Sequence[tuple[str, int]] = ()
    ) -> None:
        self._app = app
        self._limit = limit_bytes
        self._by_path = sorted(by_path, key=lambda each: len(each[0]), reverse=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        counted = _Counted(scope, receive, send, self._limit_of(scope["path"]))
        if counted.is_announced_too_large():
            await counted.refuse()
            return
        await self._pass_on(counted)

    async def _pass_on(self, counted: "_Counted") -> None:
        try:
            await self._app(counted.scope, counted.receive, counted.send)
        except Exception:
            if not counted.refused:
                raise
            # It was told that the client is gone, and said so.

    def _limit_of(self, path: str) -> int:
        special = (limit for start, limit in self._by_path if path.startswith(start))
        return next(special, self._limit)


class _Counted:
    """One request whose body is counted on its way in."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        self.scope = scope
        self.refused = False
        self._receive = receive
        self._send = send
        self._limit = limit
        self._received = 0
        self._begun = False

    def is_announced_too_large(self) -> bool:
        announced = header(self.scope, b"content-length") or b"0"
        return int(announced) > self._limit

    async def receive(self) -> Message:
        """The next part; once there is too much, the client is as good as gone."""
        if self.refused:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received > self._limit:
            await self.refuse()
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        """Passes an answer on, unless the refusal was the answer."""
        if self.refused:
            return
        self._begun = True
        await self._send(message)

    async def refuse(self) -> None:
        self.refused = True
        if not self._begun:
            await send_problem(self._send, _too_large(self._limit), self._closing())

    def _closing(self) -> list[tuple[bytes, bytes]]:
        """A client that waits for "100 Continue" will not send its body: the two lose step."""
        waits = header(self.scope, b"expect") is not None and not self._received
        return [(b"connection", b"close")] if waits else []


def _too_large(limit_bytes: int) -> Problem:
    """The refusal of a body larger than `limit_bytes`."""
    return problem(
        413,
        "Content Too Large",
        f"the body has more than {limit_bytes} bytes",
        reason="MESSAGE_TOO_LARGE",
        metadata={"limit_bytes": str(limit_bytes)},
    )
