"""The whole OpenAPI 3.1 document, from the contract's descriptors and comments."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.descriptor import MethodDescriptor

from gateway.openapi import shared
from gateway.openapi.comments import Comments
from gateway.openapi.operations import Operations, tag_of
from gateway.openapi.paths import Paths
from gateway.openapi.schemas import Schemas
from gateway.routes import Route

TITLE: Final = "Zaaz platform"
VERSION: Final = "1"
"""Of the contract, as in `zaaz.credits.v1`."""

ABOUT: Final = """\
Credits as a platform service, for browsers. Partners' servers call the same methods over gRPC, \
which is what this API is made from.

**JSON** is that of proto3 in the .proto's names: 64-bit integers are strings (numbers are taken, \
too), enums are names, times are RFC 3339 in UTC. `null` is a field left out. Unknown fields \
are refused.

**Refusals** are `application/problem+json` with a `reason` for programs. Rows that the ledger \
writes cannot be changed: those verbs answer 405 with LEDGER_IMMUTABLE.

**Retries** are safe with the same `Idempotency-Key`. `traceparent` and `x-request-id` are taken \
and passed on."""


def document(routes: Sequence[Route], comments: Comments) -> dict[str, Any]:
    """What /openapi.json says."""
    schemas = Schemas(comments, [route.method for route in routes])
    places = Paths(routes)
    operations = Operations(schemas, comments, places)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    times: Counter[str] = Counter()
    for route in routes:
        method = route.method
        times[method.full_name] += 1
        operation = operations.of(route, _operation_id(method, times[method.full_name]))
        paths[places.path(route)][route.verb.lower()] = operation
    components = shared.components()
    components["schemas"] |= dict(sorted(schemas.components.items()))
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": VERSION, "description": ABOUT},
        "servers": [{"url": "/"}],
        "tags": _tags(routes, comments),
        "paths": dict(paths),
        "components": components,
    }


def _operation_id(method: MethodDescriptor, number: int) -> str:
    name = f"{method.containing_service.name}_{method.name}"
    return name if number == 1 else f"{name}{number}"


def _tags(routes: Sequence[Route], comments: Comments) -> list[dict[str, str]]:
    services = {tag_of(r.method): r.method.containing_service.full_name for r in routes}
    return [
        {"name": tag, "description": comments.of(service) or tag}
        for tag, service in services.items()
    ]
