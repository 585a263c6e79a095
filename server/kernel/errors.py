"""Errors that a caller is meant to see.

    DomainError          a Reason, a message, metadata, field violations
      +- (raised as is)  the edge turns it into a google.rpc.Status

Domains raise DomainError and know nothing of gRPC or HTTP codes; `rpc/errors.py`
holds the one table from reason to code. Anything else that escapes a handler
is a defect and reaches the caller as INTERNAL with an id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto


class Reason(StrEnum):
    """Values of `zaaz.common.v1.ErrorReason` without their prefix (a test compares the two)."""

    @staticmethod
    def _generate_next_value_(name: str, *_: object) -> str:
        return name

    INTERNAL = auto()
    DEPENDENCY_UNAVAILABLE = auto()
    OVERLOADED = auto()
    DEADLINE_EXCEEDED = auto()
    DRAINING = auto()
    METHOD_UNIMPLEMENTED = auto()
    RATE_LIMITED = auto()
    ORIGIN_NOT_ALLOWED = auto()
    ROUTE_NOT_FOUND = auto()
    VERB_NOT_ALLOWED = auto()
    LEDGER_IMMUTABLE = auto()
    MEDIA_TYPE_UNSUPPORTED = auto()
    FIELD_INVALID = auto()
    MALFORMED_ID = auto()
    MALFORMED_MESSAGE = auto()
    MESSAGE_TOO_LARGE = auto()
    PAGE_TOKEN_INVALID = auto()
    UPDATE_MASK_INVALID = auto()
    ETAG_MISMATCH = auto()
    REQUEST_ID_REUSED = auto()
    CREDENTIALS_MISSING = auto()
    CREDENTIALS_INVALID = auto()
    API_KEY_EXPIRED = auto()
    API_KEY_REVOKED = auto()
    SCOPE_MISSING = auto()
    METHOD_CLOSED = auto()
    API_KEY_NOT_FOUND = auto()
    WALLET_NOT_FOUND = auto()
    INSUFFICIENT_CREDITS = auto()
    WALLET_EXPIRED = auto()
    CONTENTION = auto()
    AMOUNT_OUT_OF_RANGE = auto()
    TOO_MANY_GRANTS = auto()
    TRANSACTION_NOT_FOUND = auto()
    ALREADY_REVERSED = auto()
    NOT_REVERSIBLE = auto()
    USAGE_NOT_FOUND = auto()
    USAGE_KEY_REUSED = auto()
    PRICE_NOT_FOUND = auto()
    FEATURE_ENDPOINT_NOT_FOUND = auto()
    HOLD_NOT_FOUND = auto()
    OCCURRED_TIME_OUT_OF_RANGE = auto()
    OFFSET_OUT_OF_RANGE = auto()
    WRITER_FENCED = auto()
    STREAM_NOT_OPEN = auto()
    STREAM_ALREADY_OPEN = auto()
    FRAME_SIZE_INVALID = auto()
    REJECTED_USAGE_NOT_FOUND = auto()
    RESOURCE_NOT_FOUND = auto()
    ALREADY_EXISTS = auto()
    STILL_REFERENCED = auto()
    FIELD_IMMUTABLE = auto()
    FILTER_INVALID = auto()
    ORDER_BY_INVALID = auto()
    EXPAND_INVALID = auto()
    REFERENCE_NOT_FOUND = auto()
    CYCLE = auto()
    ACTIVE_REQUIRED = auto()
    INITIAL_REQUIRED = auto()
    FEATURE_ENDPOINT_INACTIVE = auto()
    FEATURE_INACTIVE = auto()
    AI_MODEL_INACTIVE = auto()
    WORD_LIMIT_EXCEEDED = auto()
    HOLD_ENDED = auto()
    TOO_MANY_HOLDS = auto()
    RESYNC_REQUIRED = auto()
    TOO_MANY_WATCHERS = auto()
    FEATURE_NOT_INCLUDED = auto()
    TICKET_INVALID = auto()
    PACKAGE_NOT_SOLD = auto()
    CURRENCY_NOT_SOLD = auto()
    INITIAL_PACKAGE_MISSING = auto()
    SUBSCRIPTION_NOT_FOUND = auto()
    PAYMENT_ALREADY_USED = auto()
    COUPON_NOT_FOUND = auto()
    COUPON_EXPIRED = auto()
    COUPON_NOT_YET_VALID = auto()
    COUPON_USED_UP = auto()
    COUPON_USED_BY_USER = auto()
    COUPON_MINIMUM_NOT_MET = auto()
    COUPON_NOT_FOR_PACKAGE = auto()
    COUPON_NOT_FOR_CURRENCY = auto()
    COUPON_NOT_A_DISCOUNT = auto()
    COUPON_NOT_REDEEMABLE = auto()


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that breaks its rule: its path in the request, and what would be right."""

    field: str
    description: str


class DomainError(Exception):
    """A refusal with its reason. Nothing has been changed when it is raised."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        metadata: Mapping[str, object] | None = None,
        *,
        violations: Sequence[FieldViolation] = (),
        retry_delay_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = {key: str(value) for key, value in (metadata or {}).items()}
        self.violations = tuple(violations)
        self.retry_delay_seconds = retry_delay_seconds


def refused(
    reason: Reason, field: str, description: str, metadata: Mapping[str, object]
) -> DomainError:
    """`reason` because of one field, which a violation names."""
    violation = FieldViolation(field, description)
    return DomainError(reason, f"{field}: {description}", metadata, violations=[violation])


def field_invalid(field: str, description: str) -> DomainError:
    """FIELD_INVALID for one field."""
    return refused(Reason.FIELD_INVALID, field, description, {"field": field})
