"""How often one client may call: by its address, and by its key when it shows one."""

import hashlib
import secrets
from collections.abc import Callable
from random import uniform
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
from gateway.security.gcra import BURST_SECONDS, Decision, Limiter
from gateway.security.proxies import Address, address_of

FREE: Final = frozenset({"/healthz", "/readyz"})
"""Asked by machines that must always get an answer."""

IPV6_HOST_BITS: Final = 64
"""One client has a whole /64 to call from."""

EVENT_STREAM: Final = b"text/event-stream"
PUT_OFF_SPREAD_SECONDS: Final = 5.0

_DIGEST_BYTES = 16
_BEARER = b"bearer "


class RateLimit:
    """Counts a request, or answers 429. A stream of events counts once, when it is opened;
    who comes back to one too soon is told to wait, since EventSource takes a 429 for the end.

    The address is asked first, so that made-up keys cost their sender.
    """

    def __init__(
        self,
        app: ASGIApp,
        rate_per_second: float,
        key_rate_per_second: float,
        clock: Callable[[], float],
    ) -> None:
        self._app = app
        self._addresses = Limiter(rate_per_second, clock) if rate_per_second else None
        self._keys = Limiter(key_rate_per_second, clock) if key_rate_per_second else None
        # Tokens are kept as keyed hashes that mean nothing outside this process.
        self._secret = secrets.token_bytes(_DIGEST_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in FREE:
            await self._app(scope, receive, send)
            return
        name, limiter, decision = self._decide(scope)
        if limiter is None or decision is None:
            await self._app(scope, receive, send)
            return
        told = _told(name, limiter, decision)
        if not decision.taken:
            refuse = _put_off if _resumes_events(scope) else _refusal
            await send_problem(send, refuse(name, decision), told)
            return

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = with_headers(message, told)
            await send(message)

        await self._app(scope, receive, tell)

    def _decide(self, scope: Scope) -> tuple[str, Limiter | None, Decision | None]:
        """The limit that refuses, or else the one that leaves less."""
        by_address = _taken(self._addresses, address_key(scope))
        if by_address is not None and not by_address.taken:
            return "address", self._addresses, by_address
        token = _token(scope)
        by_key = _taken(self._keys, self._digest(token)) if token else None
        if by_key is not None and (by_address is None or _is_tighter(by_key, by_address)):
            return "key", self._keys, by_key
        return "address", self._addresses, by_address

    def _digest(self, token: bytes) -> bytes:
        return hashlib.blake2b(token, digest_size=_DIGEST_BYTES, key=self._secret).digest()


def _taken(limiter: Limiter | None, key: bytes) -> Decision | None:
    return None if limiter is None else limiter.take(key)


def address_key(scope: Scope) -> bytes:
    """What stands for a client's address: all of IPv4, the network of IPv6."""
    text = scope["client"][0] if scope.get("client") else ""
    address = address_of(text)
    return text.encode() if address is None else _packed(address)


def _packed(address: Address) -> bytes:
    return address.packed if address.version == 4 else address.packed[: IPV6_HOST_BITS // 8]


def _token(scope: Scope) -> bytes | None:
    value = header(scope, b"authorization") or b""
    return value[len(_BEARER) :].strip() if value[: len(_BEARER)].lower() == _BEARER else None


def _is_tighter(one: Decision, other: Decision) -> bool:
    return not one.taken or one.remaining < other.remaining


def _told(name: str, limiter: Limiter, decision: Decision) -> HeaderList:
    """`RateLimit` and `RateLimit-Policy` of the IETF's draft."""
    policy = f'"{name}";q={limiter.burst};w={BURST_SECONDS}'
    now = f'"{name}";r={decision.remaining};t={decision.reset_seconds}'
    return [(b"ratelimit-policy", policy.encode()), (b"ratelimit", now.encode())]


def _resumes_events(scope: Scope) -> bool:
    accepts = header(scope, b"accept") == EVENT_STREAM
    return accepts and header(scope, b"last-event-id") is not None


def _put_off(_name: str, decision: Decision) -> Problem:
    """No events, and when to come back: spread, for those who share an address come together."""
    seconds = decision.retry_after_seconds + uniform(0, PUT_OFF_SPREAD_SECONDS)
    body = b"retry: %d\n\n" % round(seconds * 1000)
    return 200, [(b"content-type", EVENT_STREAM)], body


def _refusal(name: str, decision: Decision) -> Problem:
    seconds = decision.retry_after_seconds
    return problem(
        429,
        "Too Many Requests",
        f"too many requests from this {name}: wait {seconds} s",
        reason="RATE_LIMITED",
        metadata={"limited": name},
        retry_seconds=seconds,
        headers=[(b"retry-after", str(seconds).encode())],
    )
