"""From a path to the endpoint that answers: the application itself.

/healthz, /readyz, pages       exactly these paths
routes of the contract         by the tree
writes to what is only read    405 LEDGER_IMMUTABLE
anything else                  404, or 405 with Allow
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import paths
from gateway.exchange import Exchange
from gateway.immutable import immutable_tree, is_immutable
from gateway.refusals import Refusal
from gateway.routes import Route
from gateway.templates import parse_template
from gateway.tree import Found, Tree

Endpoint = Callable[[Exchange, Sequence[str]], Awaitable[None]]
"""Answers an exchange; it is given the segments of the path as they were sent."""


class Router:
    """The ASGI application without what stands before it."""

    def __init__(
        self, endpoints: Iterable[tuple[Route, Endpoint]], pages: Mapping[str, ASGIApp]
    ) -> None:
        """RouteConflictError if two routes match the same paths."""
        self._tree: Tree[Endpoint] = Tree()
        routes = []
        for route, endpoint in endpoints:
            self._tree.add(parse_template(route.path), route.verb, endpoint)
            routes.append(route)
        self._immutable = immutable_tree(routes)
        self._pages = dict(pages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return
        page = self._pages.get(scope["path"])
        if page is not None:
            await page(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send)
        try:
            exchange.read_head()
            endpoint, segments = self._find(scope)
            await endpoint(exchange, segments)
        except Refusal as refusal:
            await exchange.refuse(refusal)
        except ClientDisconnect:
            return

    def _find(self, scope: Scope) -> tuple[Endpoint, Sequence[str]]:
        raw = paths.split(scope["raw_path"])
        segments = paths.decode(raw)
        verb = "GET" if scope["method"] == "HEAD" else scope["method"]
        if paths.climbs(segments):
            raise _nothing_here()
        found = self._tree.find(segments, verb)
        if found is not None and found.target is not None:
            return found.target, _without_suffix(raw, found)
        immutable = self._immutable.find(segments, verb)
        if immutable is not None and immutable.target:
            raise _with_allow(is_immutable(), found)
        if found is None:
            raise _nothing_here()
        raise _with_allow(Refusal(405, "VERB_NOT_ALLOWED", f"{verb} is not for this path"), found)


def _without_suffix(raw: list[str], found: Found[Endpoint]) -> list[str]:
    """The verb behind a colon is no part of what a variable takes."""
    if not found.suffix:
        return raw
    last = raw[-1]
    cut = max(last.rfind(":"), last.upper().rfind("%3A"))
    return [*raw[:-1], last[:cut]]


def _nothing_here() -> Refusal:
    return Refusal(404, "ROUTE_NOT_FOUND", "there is nothing at this path")


def _with_allow(refusal: Refusal, found: Found[Endpoint] | None) -> Refusal:
    verbs = set(found.verbs) if found is not None else set()
    if "GET" in verbs:
        verbs.add("HEAD")
    refusal.headers = (*refusal.headers, (b"allow", ", ".join(sorted(verbs)).encode()))
    return refusal


__all__: Final = ["Endpoint", "Router"]
