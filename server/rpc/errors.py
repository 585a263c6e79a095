"""Errors at the edge: every refusal becomes one google.rpc.Status.

    DomainError ------------------------------> its own reason
    what `translate` knows (database gone) ---> the reason it gives
    anything else (a defect) -----------------> INTERNAL with an error_id; the
                                                text goes to the log only

CODES is the one table from reason to gRPC code.
"""

import logging
import secrets
from collections.abc import Callable, Iterable
from typing import Any, Final

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from server.kernel.errors import DomainError, FieldViolation, Reason

Translate = Callable[[BaseException], DomainError | None]
"""Knows exceptions of the house's dependencies; None for one it does not know."""

DOMAIN: Final = "zaaz"
STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"

MAX_MESSAGE_CHARACTERS: Final = 500
MAX_METADATA_VALUE_CHARACTERS: Final = 200
MAX_VIOLATION_BYTES: Final = 2_048
"""Clients refuse trailers above 8 KiB, and then the caller sees no reason at all."""

DEFAULT_RETRY_SECONDS: Final = {
    Reason.DEPENDENCY_UNAVAILABLE: 1.0,
    Reason.DRAINING: 0.1,
    Reason.CONTENTION: 0.05,
    Reason.OVERLOADED: 0.5,
}
"""How long a caller should wait who is not told more precisely."""

_ERROR_ID_BYTES = 8
_log = logging.getLogger(__name__)

_Code = grpc.StatusCode
CODES: Final[dict[Reason, grpc.StatusCode]] = {
    Reason.INTERNAL: _Code.INTERNAL,
    Reason.DEPENDENCY_UNAVAILABLE: _Code.UNAVAILABLE,
    Reason.OVERLOADED: _Code.RESOURCE_EXHAUSTED,
    Reason.DEADLINE_EXCEEDED: _Code.DEADLINE_EXCEEDED,
    Reason.DRAINING: _Code.UNAVAILABLE,
    Reason.METHOD_UNIMPLEMENTED: _Code.UNIMPLEMENTED,
    Reason.RATE_LIMITED: _Code.RESOURCE_EXHAUSTED,
    Reason.ORIGIN_NOT_ALLOWED: _Code.PERMISSION_DENIED,
    Reason.ROUTE_NOT_FOUND: _Code.UNIMPLEMENTED,
    Reason.VERB_NOT_ALLOWED: _Code.UNIMPLEMENTED,
    Reason.LEDGER_IMMUTABLE: _Code.UNIMPLEMENTED,
    Reason.MEDIA_TYPE_UNSUPPORTED: _Code.INVALID_ARGUMENT,
    Reason.FIELD_INVALID: _Code.INVALID_ARGUMENT,
    Reason.MALFORMED_ID: _Code.INVALID_ARGUMENT,
    Reason.MALFORMED_MESSAGE: _Code.INVALID_ARGUMENT,
    Reason.MESSAGE_TOO_LARGE: _Code.RESOURCE_EXHAUSTED,
    Reason.PAGE_TOKEN_INVALID: _Code.INVALID_ARGUMENT,
    Reason.UPDATE_MASK_INVALID: _Code.INVALID_ARGUMENT,
    Reason.ETAG_MISMATCH: _Code.ABORTED,
    Reason.REQUEST_ID_REUSED: _Code.ALREADY_EXISTS,
    Reason.CREDENTIALS_MISSING: _Code.UNAUTHENTICATED,
    Reason.CREDENTIALS_INVALID: _Code.UNAUTHENTICATED,
    Reason.API_KEY_EXPIRED: _Code.UNAUTHENTICATED,
    Reason.API_KEY_REVOKED: _Code.UNAUTHENTICATED,
    Reason.SCOPE_MISSING: _Code.PERMISSION_DENIED,
    Reason.METHOD_CLOSED: _Code.PERMISSION_DENIED,
    Reason.API_KEY_NOT_FOUND: _Code.NOT_FOUND,
    Reason.WALLET_NOT_FOUND: _Code.NOT_FOUND,
    Reason.INSUFFICIENT_CREDITS: _Code.FAILED_PRECONDITION,
    Reason.WALLET_EXPIRED: _Code.FAILED_PRECONDITION,
    Reason.CONTENTION: _Code.ABORTED,
    Reason.AMOUNT_OUT_OF_RANGE: _Code.OUT_OF_RANGE,
    Reason.TOO_MANY_GRANTS: _Code.RESOURCE_EXHAUSTED,
    Reason.TRANSACTION_NOT_FOUND: _Code.NOT_FOUND,
    Reason.ALREADY_REVERSED: _Code.ALREADY_EXISTS,
    Reason.NOT_REVERSIBLE: _Code.FAILED_PRECONDITION,
    Reason.USAGE_NOT_FOUND: _Code.NOT_FOUND,
    Reason.USAGE_KEY_REUSED: _Code.ALREADY_EXISTS,
    Reason.PRICE_NOT_FOUND: _Code.FAILED_PRECONDITION,
    Reason.FEATURE_ENDPOINT_NOT_FOUND: _Code.FAILED_PRECONDITION,
    Reason.HOLD_NOT_FOUND: _Code.NOT_FOUND,
    Reason.OCCURRED_TIME_OUT_OF_RANGE: _Code.OUT_OF_RANGE,
    Reason.OFFSET_OUT_OF_RANGE: _Code.OUT_OF_RANGE,
    Reason.WRITER_FENCED: _Code.ABORTED,
    Reason.STREAM_NOT_OPEN: _Code.FAILED_PRECONDITION,
    Reason.STREAM_ALREADY_OPEN: _Code.FAILED_PRECONDITION,
    Reason.FRAME_SIZE_INVALID: _Code.INVALID_ARGUMENT,
    Reason.REJECTED_USAGE_NOT_FOUND: _Code.NOT_FOUND,
    Reason.RESOURCE_NOT_FOUND: _Code.NOT_FOUND,
    Reason.ALREADY_EXISTS: _Code.ALREADY_EXISTS,
    Reason.STILL_REFERENCED: _Code.FAILED_PRECONDITION,
    Reason.FIELD_IMMUTABLE: _Code.INVALID_ARGUMENT,
    Reason.FILTER_INVALID: _Code.INVALID_ARGUMENT,
    Reason.ORDER_BY_INVALID: _Code.INVALID_ARGUMENT,
    Reason.EXPAND_INVALID: _Code.INVALID_ARGUMENT,
    Reason.REFERENCE_NOT_FOUND: _Code.FAILED_PRECONDITION,
    Reason.CYCLE: _Code.FAILED_PRECONDITION,
    Reason.ACTIVE_REQUIRED: _Code.FAILED_PRECONDITION,
    Reason.INITIAL_REQUIRED: _Code.FAILED_PRECONDITION,
    Reason.FEATURE_ENDPOINT_INACTIVE: _Code.FAILED_PRECONDITION,
    Reason.FEATURE_INACTIVE: _Code.FAILED_PRECONDITION,
    Reason.AI_MODEL_INACTIVE: _Code.FAILED_PRECONDITION,
    Reason.WORD_LIMIT_EXCEEDED: _Code.FAILED_PRECONDITION,
    Reason.HOLD_ENDED: _Code.FAILED_PRECONDITION,
    Reason.TOO_MANY_HOLDS: _Code.RESOURCE_EXHAUSTED,
    Reason.RESYNC_REQUIRED: _Code.OUT_OF_RANGE,
    Reason.TOO_MANY_WATCHERS: _Code.RESOURCE_EXHAUSTED,
    Reason.FEATURE_NOT_INCLUDED: _Code.FAILED_PRECONDITION,
    Reason.TICKET_INVALID: _Code.UNAUTHENTICATED,
    Reason.PACKAGE_NOT_SOLD: _Code.FAILED_PRECONDITION,
    Reason.CURRENCY_NOT_SOLD: _Code.FAILED_PRECONDITION,
    Reason.INITIAL_PACKAGE_MISSING: _Code.FAILED_PRECONDITION,
    Reason.SUBSCRIPTION_NOT_FOUND: _Code.NOT_FOUND,
    Reason.PAYMENT_ALREADY_USED: _Code.FAILED_PRECONDITION,
    Reason.COUPON_NOT_FOUND: _Code.NOT_FOUND,
    Reason.COUPON_EXPIRED: _Code.FAILED_PRECONDITION,
    Reason.COUPON_NOT_YET_VALID: _Code.FAILED_PRECONDITION,
    Reason.COUPON_USED_UP: _Code.FAILED_PRECONDITION,
    Reason.COUPON_USED_BY_USER: _Code.FAILED_PRECONDITION,
    Reason.COUPON_MINIMUM_NOT_MET: _Code.FAILED_PRECONDITION,
    Reason.COUPON_NOT_FOR_PACKAGE: _Code.FAILED_PRECONDITION,
    Reason.COUPON_NOT_FOR_CURRENCY: _Code.FAILED_PRECONDITION,
    Reason.COUPON_NOT_A_DISCOUNT: _Code.FAILED_PRECONDITION,
    Reason.COUPON_NOT_REDEEMABLE: _Code.FAILED_PRECONDITION,
}


def to_status(error: DomainError) -> status_pb2.Status:
    """`error` with ErrorInfo, and BadRequest and RetryInfo where they apply.

    Fits the trailers of a call: long texts are cut, violations past
    MAX_VIOLATION_BYTES are left out.
    """
    code: int = CODES[error.reason].value[0]
    status = status_pb2.Status(code=code, message=_cut(error.message, MAX_MESSAGE_CHARACTERS))
    for detail in _details(error):
        status.details.append(_packed(detail))
    return status


def understand(error: Exception, method: str, translate: Translate) -> DomainError:
    """What the caller is told of an exception that is no DomainError itself."""
    known = _sole(error)
    if isinstance(known, DomainError):
        return known
    translated = translate(known)
    if translated is not None:
        return translated
    error_id = secrets.token_hex(_ERROR_ID_BYTES)
    _log.error(
        "a handler failed",
        exc_info=error,
        extra={"fields": {"method": method, "error_id": error_id}},
    )
    message = "something broke here; the server's log has the error_id"
    return DomainError(Reason.INTERNAL, message, {"error_id": error_id})


async def abort(context: "grpc.aio.ServicerContext[Any, Any]", error: DomainError) -> None:
    """End the call with `error`'s status; always raises grpc.aio.AbortError."""
    status = to_status(error)
    trailers = [*(context.trailing_metadata() or ())]
    trailers.append((STATUS_DETAILS_KEY, status.SerializeToString()))
    await context.abort(CODES[error.reason], status.message, tuple(trailers))


def _sole(error: BaseException) -> BaseException:
    """What a TaskGroup wrapped, when only one of its tasks failed; else `error` itself."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _details(error: DomainError) -> Iterable[Message]:
    metadata = {k: _cut(v, MAX_METADATA_VALUE_CHARACTERS) for k, v in error.metadata.items()}
    yield error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    if error.violations:
        yield _bad_request(error.violations)
    retry_seconds = error.retry_delay_seconds
    if retry_seconds is None:
        retry_seconds = DEFAULT_RETRY_SECONDS.get(error.reason)
    if retry_seconds is not None:
        delay = Duration()
        delay.FromMilliseconds(round(retry_seconds * 1000))
        yield error_details_pb2.RetryInfo(retry_delay=delay)


def _bad_request(violations: Iterable[FieldViolation]) -> error_details_pb2.BadRequest:
    bad_request = error_details_pb2.BadRequest()
    for violation in violations:
        bad_request.field_violations.add(
            field=_cut(violation.field, MAX_METADATA_VALUE_CHARACTERS),
            description=_cut(violation.description, MAX_METADATA_VALUE_CHARACTERS),
        )
        if bad_request.ByteSize() > MAX_VIOLATION_BYTES:
            break
    return bad_request


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
