"""From gRPC's errors to the SDK's, in one place."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final, TypeAlias

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, status_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from zaaz_client.error_tables import CLASS_BY_CODE, CLASS_BY_REASON
from zaaz_client.errors import (
    ErrorDetails,
    FieldViolation,
    MessageTooLarge,
    ZaazError,
)

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]

_DETAILS_KEY: Final = "grpc-status-details-bin"
_DOMAIN: Final = "zaaz"
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_TOO_LARGE_MARKS: Final = ("message larger than max", "larger than the limit")
"""How gRPC core words a message over the bound; it has no code of its own."""


def from_rpc_error(error: grpc.aio.AioRpcError) -> ZaazError:
    """The typed error of a failed call."""
    message = error.details() or error.code().name.lower().replace("_", " ")
    return _make(error.code(), message, _status_in(error.trailing_metadata()))


def reason_in(trailing_metadata: Metadata | None) -> str:
    """The reason that a failed call ended with; empty where the transport failed."""
    return _details(grpc.StatusCode.UNKNOWN, _status_in(trailing_metadata)).reason


def from_status(status: status_pb2.Status) -> ZaazError:
    """The typed error inside a response, as of one event of a frame."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return _make(code, status.message or code_pb2.Code.Name(code.value[0]), status)


def _status_in(trailing_metadata: Metadata | None) -> status_pb2.Status:
    for key, value in trailing_metadata or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def _make(code: grpc.StatusCode, message: str, status: status_pb2.Status) -> ZaazError:
    details = _details(code, status)
    known = CLASS_BY_REASON.get(details.reason)
    if known is None and any(mark in message for mark in _TOO_LARGE_MARKS):
        known = MessageTooLarge
    return (known or CLASS_BY_CODE.get(code, ZaazError))(message, details)


def _details(code: grpc.StatusCode, status: status_pb2.Status) -> ErrorDetails:
    info, bad_request, retry = ErrorInfo(), BadRequest(), RetryInfo()
    for detail in status.details:
        _unpack(detail, info, bad_request, retry)
    ours = info.domain == _DOMAIN
    return ErrorDetails(
        code=code,
        reason=info.reason if ours else "",
        metadata=dict(info.metadata) if ours else {},
        violations=tuple(
            FieldViolation(violation.field, violation.description)
            for violation in bad_request.field_violations
        ),
        retry_delay=_delay(retry),
    )


def _unpack(detail: AnyMessage, *targets: ErrorInfo | BadRequest | RetryInfo) -> None:
    for target in targets:
        if detail.Is(target.DESCRIPTOR):
            try:
                detail.Unpack(target)
            except DecodeError:
                return


def _delay(retry: RetryInfo) -> timedelta | None:
    if not retry.HasField("retry_delay"):
        return None
    delay = retry.retry_delay
    return timedelta(seconds=delay.seconds, microseconds=delay.nanos // 1000)
