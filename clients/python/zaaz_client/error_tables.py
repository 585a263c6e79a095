"""Which class a reason or a gRPC code becomes."""

from collections.abc import Iterator, Mapping
from typing import Final

from grpc import StatusCode

# Imported for their classes: a reason's class is found among what is defined.
from zaaz_client import offer_errors as _offer_errors  # noqa: F401
from zaaz_client import resource_errors as _resource_errors  # noqa: F401
from zaaz_client.errors import (
    AccessRefused,
    Conflict,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    KeyReused,
    MethodUnimplemented,
    NotFound,
    Overloaded,
    Unavailable,
    ZaazError,
)


def _family(root: type[ZaazError]) -> Iterator[type[ZaazError]]:
    yield root
    for child in root.__subclasses__():
        yield from _family(child)


CLASS_BY_REASON: Final[Mapping[str, type[ZaazError]]] = {
    reason: kind for kind in _family(ZaazError) for reason in kind.__dict__.get("reasons", ())
}

CLASS_BY_CODE: Final[Mapping[StatusCode, type[ZaazError]]] = {
    StatusCode.UNAVAILABLE: Unavailable,
    StatusCode.CANCELLED: Unavailable,
    StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    StatusCode.INTERNAL: InternalError,
    StatusCode.UNKNOWN: InternalError,
    StatusCode.DATA_LOSS: InternalError,
    StatusCode.INVALID_ARGUMENT: InvalidRequest,
    StatusCode.OUT_OF_RANGE: InvalidRequest,
    StatusCode.UNIMPLEMENTED: MethodUnimplemented,
    StatusCode.UNAUTHENTICATED: AccessRefused,
    StatusCode.PERMISSION_DENIED: AccessRefused,
    StatusCode.NOT_FOUND: NotFound,
    StatusCode.ALREADY_EXISTS: KeyReused,
    StatusCode.ABORTED: Conflict,
    StatusCode.FAILED_PRECONDITION: Conflict,
}
"""For statuses without a reason that this SDK knows. CANCELLED here is the peer's doing."""
