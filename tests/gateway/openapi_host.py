"""The document as the gateway would serve it, and where its parts stand."""

from collections.abc import Iterator
from typing import Any

from gateway.openapi.comments import load_comments
from gateway.openapi.document import document
from gateway.openapi.paths import Paths
from gateway.routes import Route, contract_files, routes_of

ROUTES = routes_of(contract_files())
PLACES = Paths(ROUTES)
DOCUMENT = document(ROUTES, load_comments())

Json = dict[str, Any]


def operation_of(route: Route) -> Json:
    """The operation of a route."""
    operation: Json = DOCUMENT["paths"][PLACES.path(route)][route.verb.lower()]
    return operation


def operation(operation_id: str) -> Json:
    """The operation of that name."""
    found = (each for path in DOCUMENT["paths"].values() for each in path.values())
    return next(each for each in found if each["operationId"] == operation_id)


def schema(name: str) -> Json:
    """A component's schema."""
    found: Json = DOCUMENT["components"]["schemas"][name]
    return found


def walk(value: Any) -> Iterator[Any]:
    """`value` and everything in it."""
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from walk(each)
