"""Whether this process lives, and whether it can serve."""

from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.refusals import Refusal, unavailable
from gateway.upstream import Upstream

_OK: Final = b'{"status":"ok"}'
_HEADERS: Final = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_OK)).encode()),
]


def health_pages(upstream: Upstream) -> Mapping[str, ASGIApp]:
    """`/healthz`: the process answers. `/readyz`: the server behind it is serving."""

    async def healthz(scope: Scope, _receive: Receive, send: Send) -> None:
        await _answer(scope, send, is_well=True)

    async def readyz(scope: Scope, _receive: Receive, send: Send) -> None:
        await _answer(scope, send, is_well=await upstream.is_serving())

    return {"/healthz": healthz, "/readyz": readyz}


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
