"""What a request may be refused for, and the one table of HTTP statuses.

    status of a gRPC call --+
    a Refusal raised here --+--> problem+json

Reasons are those of `zaaz.common.v1.ErrorReason`. Nothing of a stack trace, of
an address or of gRPC's own texts goes out.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from gateway.problems import Problem, Violation, problem

STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"

_Code = grpc.StatusCode
HTTP_STATUS: Final[Mapping[grpc.StatusCode, int]] = {
    _Code.OK: 200,
    _Code.CANCELLED: 499,
    _Code.UNKNOWN: 500,
    _Code.INVALID_ARGUMENT: 400,
    _Code.DEADLINE_EXCEEDED: 504,
    _Code.NOT_FOUND: 404,
    _Code.ALREADY_EXISTS: 409,
    _Code.PERMISSION_DENIED: 403,
    _Code.UNAUTHENTICATED: 401,
    _Code.RESOURCE_EXHAUSTED: 429,
    # "A conflict with the current state of the resource": what was asked is well-formed.
    _Code.FAILED_PRECONDITION: 409,
    _Code.ABORTED: 409,
    _Code.OUT_OF_RANGE: 400,
    _Code.UNIMPLEMENTED: 501,
    _Code.INTERNAL: 500,
    _Code.UNAVAILABLE: 503,
    _Code.DATA_LOSS: 500,
}
"""What a gRPC code is over HTTP."""

STATUS_OF_REASON: Final[Mapping[str, int]] = {
    "ETAG_MISMATCH": 412,
    "MESSAGE_TOO_LARGE": 413,
}
"""Where HTTP has a word of its own, whatever the code."""

_WITHOUT_DETAILS: Final[Mapping[grpc.StatusCode, tuple[str, str]]] = {
    _Code.UNAVAILABLE: ("DEPENDENCY_UNAVAILABLE", "the server cannot be reached"),
    _Code.DEADLINE_EXCEEDED: ("DEADLINE_EXCEEDED", "the time for this request ran out"),
    _Code.UNIMPLEMENTED: ("METHOD_UNIMPLEMENTED", "the server does not serve this method"),
    _Code.RESOURCE_EXHAUSTED: ("OVERLOADED", "the server has no room for this"),
}
"""What is said of a call that ended in gRPC itself, before or beside the server's own words."""

_UNEXPLAINED: Final = ("INTERNAL", "the request failed")
_RETRY_SECONDS: Final[Mapping[str, float]] = {"DEPENDENCY_UNAVAILABLE": 1.0, "OVERLOADED": 0.5}


@dataclass(slots=True)
class Refusal(Exception):  # noqa: N818 - as the house calls it
    """A request that is not served. `headers` go out with it."""

    status: int
    reason: str
    detail: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: Sequence[Violation] = ()
    retry_seconds: float | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def answer(self) -> Problem:
        """What goes out: the headers of its status too."""
        headers = list(self.headers)
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", b"Bearer"))
        if self.retry_seconds is not None:
            seconds = max(1, math.ceil(self.retry_seconds))
            headers.append((b"retry-after", str(seconds).encode()))
        return problem(
            self.status,
            _PHRASES.get(self.status, "Error"),
            self.detail,
            reason=self.reason,
            metadata=self.metadata,
            violations=self.violations,
            retry_seconds=self.retry_seconds,
            headers=headers,
        )


_PHRASES: Final = {499: "Client Closed Request", **{each.value: each.phrase for each in HTTPStatus}}


def field_invalid(name: str, description: str) -> Refusal:
    """400 for one field of the request."""
    violations = ((name, description),)
    return Refusal(400, "FIELD_INVALID", f"{name}: {description}", {"field": name}, violations)


def malformed(detail: str) -> Refusal:
    """400 for a request that cannot be read."""
    return Refusal(400, "MALFORMED_MESSAGE", detail)


def too_large(limit_bytes: int) -> Refusal:
    """413 for a body past its bound. The connection ends, as the rest of it is not read."""
    return Refusal(
        413,
        "MESSAGE_TOO_LARGE",
        f"the body has more than {limit_bytes} bytes",
        {"limit_bytes": str(limit_bytes)},
        headers=((b"connection", b"close"),),
    )


def unavailable() -> Refusal:
    """503: the server cannot be reached."""
    return _of_code(_Code.UNAVAILABLE)


def of_call(error: grpc.aio.AioRpcError) -> Refusal:
    """What a failed call is to a client of REST."""
    status = _status_of(error)
    if status is None:
        return _of_code(error.code())
    return _of_status(error.code(), status)


def _status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
            with contextlib.suppress(DecodeError):
                return status_pb2.Status.FromString(value)
    return None


def _of_code(code: grpc.StatusCode) -> Refusal:
    reason, detail = _WITHOUT_DETAILS.get(code, _UNEXPLAINED)
    status = HTTP_STATUS.get(code, 500)
    metadata = {"dependency": "server"} if reason == "DEPENDENCY_UNAVAILABLE" else {}
    return Refusal(status, reason, detail, metadata, retry_seconds=_RETRY_SECONDS.get(reason))


def _of_status(code: grpc.StatusCode, status: status_pb2.Status) -> Refusal:
    refusal = Refusal(HTTP_STATUS.get(code, 500), _UNEXPLAINED[0], status.message)
    info, bad, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    for detail in status.details:
        if detail.Unpack(info):
            refusal.reason, refusal.metadata = info.reason, dict(info.metadata)
            refusal.status = STATUS_OF_REASON.get(info.reason, refusal.status)
        elif detail.Unpack(bad):
            refusal.violations = [(each.field, each.description) for each in bad.field_violations]
        elif detail.Unpack(retry):
            refusal.retry_seconds = retry.retry_delay.ToMilliseconds() / 1000
    return refusal
