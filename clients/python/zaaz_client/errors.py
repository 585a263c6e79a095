# ruff: noqa: N818 - the classes carry the names of the contract's reasons.
"""Everything that the SDK raises.

    ZaazError                      code, reason, message, metadata, violations, retry_delay
     |- Unavailable                nobody answers; retry
     |   |- DependencyUnavailable  Draining  Stalled (the SDK gave up waiting)
     |   |- KeyReplaced            a stream's key ended and there is a newer one: open it again
     |   |- Overloaded
     |       |- RateLimited  TooManyWatchers
     |- DeadlineExceeded           may have taken effect; retry with the same request_id
     |- InternalError              retry with the same request_id; metadata has error_id
     |   |- ProtocolError          the peer's answer makes no sense (found by the SDK)
     |- InvalidRequest             change the request
     |   |- FieldInvalid  MalformedId  MalformedMessage  MessageTooLarge  PageTokenInvalid
     |   |- UpdateMaskInvalid  AmountOutOfRange  OccurredTimeOutOfRange  FrameSizeInvalid
     |   |- StreamNotOpen  StreamAlreadyOpen  MethodUnimplemented
     |   |- FilterInvalid  OrderByInvalid  ExpandInvalid  FieldImmutable
     |   |- VerbNotAllowed  MediaTypeUnsupported
     |- AccessRefused              change the key
     |   |- CredentialsMissing  CredentialsInvalid  ApiKeyExpired  ApiKeyRevoked
     |   |- ScopeMissing  MethodClosed  OriginNotAllowed  TicketInvalid
     |- NotFound
     |   |- WalletNotFound  TransactionNotFound  UsageNotFound  PriceNotFound
     |   |- FeatureEndpointNotFound  HoldNotFound  ApiKeyNotFound  RejectedUsageNotFound
     |   |- ResourceNotFound  ReferenceNotFound  RouteNotFound
     |   |- CouponNotFound  SubscriptionNotFound
     |- KeyReused                  same key, another payload
     |   |- RequestIdReused  UsageKeyReused
     |- Conflict                   the state is not what the request assumes
     |   |- Contention (retry)  EtagMismatch  AlreadyReversed  NotReversible
     |   |- OffsetOutOfRange  WriterFenced  HoldEnded  ResyncRequired
     |   |- AlreadyExists  StillReferenced  Cycle  ActiveRequired  LedgerImmutable
     |   |- InitialRequired
     |- CreditsRefused             the wallet does not allow it
     |   |- InsufficientCredits  WalletExpired  TooManyGrants  TooManyHolds
     |- UsageRefused               switched off, or too large for the user's tier
     |   |- FeatureEndpointInactive  FeatureInactive  AiModelInactive  WordLimitExceeded
     |   |- FeatureNotIncluded
     |- PurchaseRefused            it cannot be bought, or not so
     |   |- PackageNotSold  CurrencyNotSold  InitialPackageMissing
     |   |- PaymentAlreadyUsed
     |   |- CouponRefused
     |       |- CouponExpired  CouponNotYetValid  CouponUsedUp  CouponUsedByUser
     |       |- CouponMinimumNotMet  CouponNotForPackage  CouponNotForCurrency
     |       |- CouponNotADiscount  CouponNotRedeemable
     |- NotAuthorized              `credit_process` may not begin; `denials` has every reason
     |- UsageNotReported           it ended and nobody said what it used
     |- StreamClosed               send() after close(), or the client was closed
     |- BufferFull                 send_nowait() found no room
     |- SpoolError                 a usage stream's directory cannot be used
     |   |- SpoolFull (retry)  SpoolInUse (retry)  SpoolDamaged  SpoolOfAnotherWriter

One class for each value of `zaaz.common.v1.ErrorReason`; those of the
catalog, of rows that are edited and of REST are in `resource_errors`, those of
what is sold in `offer_errors`, those of `credit_process` in `process_errors`,
those of a spool in `spool.errors`. A reason that is newer than this SDK
arrives as the class of its gRPC code, so that catching a family keeps working.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar, Final

from grpc import StatusCode


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that breaks its rule: its path in the request, and what would be right."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """What the server said beside its message.

    `reason` is a value of ErrorReason without its prefix, empty when the
    transport failed before a server could give one.
    """

    code: StatusCode = StatusCode.UNKNOWN
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_delay: timedelta | None = None


_NO_DETAILS: Final = ErrorDetails()


class ZaazError(Exception):
    """A call, an event or a stream was refused or failed."""

    reasons: ClassVar[tuple[str, ...]] = ()
    """The reason that becomes this class, if one does."""
    retryable: ClassVar[bool] = False
    """Whether the same request, with the same request_id, may succeed later."""

    def __init__(self, message: str, details: ErrorDetails = _NO_DETAILS) -> None:
        super().__init__(message, details)
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}" if self.reason else self.message

    @property
    def code(self) -> StatusCode:
        """The gRPC code."""
        return self.details.code

    @property
    def reason(self) -> str:
        """The ErrorReason without its prefix; empty for a failure of the transport."""
        return self.details.reason

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the reason's comment in error_reason.proto promises."""
        return self.details.metadata

    @property
    def violations(self) -> tuple[FieldViolation, ...]:
        """The fields that break their rules."""
        return self.details.violations

    @property
    def retry_delay(self) -> timedelta | None:
        """How long the server asks to wait before a retry."""
        return self.details.retry_delay

    def integer(self, key: str) -> int:
        """`metadata[key]` as an integer; 0 when it is absent or is none."""
        try:
            return int(self.metadata.get(key, "0"))
        except ValueError:
            return 0


class Unavailable(ZaazError):
    """Nobody answers at the target, or the connection broke."""

    retryable = True


class DependencyUnavailable(Unavailable):
    """The server cannot reach its database."""

    reasons = ("DEPENDENCY_UNAVAILABLE",)


class Overloaded(Unavailable):
    """The server queues no more work for now."""

    reasons = ("OVERLOADED",)


class RateLimited(Overloaded):
    """Too many requests in too short a time."""

    reasons = ("RATE_LIMITED",)


class TooManyWatchers(Overloaded):
    """As many watch on this server as may; metadata has the `limit`."""

    reasons = ("TOO_MANY_WATCHERS",)


class Draining(Unavailable):
    """The server is going away."""

    reasons = ("DRAINING",)


class Stalled(Unavailable):
    """The SDK gave up: nothing was acknowledged for as long as the caller allows."""


class KeyReplaced(Unavailable):
    """A stream was refused for its API key, and by now there is another: open it again."""


class DeadlineExceeded(ZaazError):
    """Time ran out; the operation may still take effect."""

    reasons = ("DEADLINE_EXCEEDED",)
    retryable = True


class InternalError(ZaazError):
    """Something broke in the server; metadata has the `error_id` of its log line."""

    reasons = ("INTERNAL",)
    retryable = True


class ProtocolError(InternalError):
    """The peer answered in a way that the contract does not know."""


class InvalidRequest(ZaazError):
    """The request breaks the contract and will whenever it is sent."""


class FieldInvalid(InvalidRequest):
    """Fields break their rules: see `violations`."""

    reasons = ("FIELD_INVALID",)


class MalformedId(InvalidRequest):
    """An id is not 24 lowercase hex digits."""

    reasons = ("MALFORMED_ID",)


class MalformedMessage(InvalidRequest):
    """The bytes are not the message that the method takes."""

    reasons = ("MALFORMED_MESSAGE",)


class MessageTooLarge(InvalidRequest):
    """The message is larger than its receiver takes."""

    reasons = ("MESSAGE_TOO_LARGE",)


class PageTokenInvalid(InvalidRequest):
    """The page token is damaged or belongs to another query."""

    reasons = ("PAGE_TOKEN_INVALID",)


class UpdateMaskInvalid(InvalidRequest):
    """The update mask names a field that cannot be updated."""

    reasons = ("UPDATE_MASK_INVALID",)


class AmountOutOfRange(InvalidRequest):
    """An amount or a balance would leave int64."""

    reasons = ("AMOUNT_OUT_OF_RANGE",)


class OccurredTimeOutOfRange(InvalidRequest):
    """The event is further in the past or in the future than is taken."""

    reasons = ("OCCURRED_TIME_OUT_OF_RANGE",)


class FrameSizeInvalid(InvalidRequest):
    """A frame has no events or more than the server takes."""

    reasons = ("FRAME_SIZE_INVALID",)


class StreamNotOpen(InvalidRequest):
    """The first message of a usage stream was not `open`."""

    reasons = ("STREAM_NOT_OPEN",)


class StreamAlreadyOpen(InvalidRequest):
    """`open` was sent twice on a usage stream."""

    reasons = ("STREAM_ALREADY_OPEN",)


class MethodUnimplemented(InvalidRequest):
    """The server does not have the method."""

    reasons = ("METHOD_UNIMPLEMENTED",)


class AccessRefused(ZaazError):
    """The key does not allow it."""


class CredentialsMissing(AccessRefused):
    """No API key was sent."""

    reasons = ("CREDENTIALS_MISSING",)


class CredentialsInvalid(AccessRefused):
    """No such API key, or a wrong secret."""

    reasons = ("CREDENTIALS_INVALID",)


class ApiKeyExpired(AccessRefused):
    """The API key is past its expires_time."""

    reasons = ("API_KEY_EXPIRED",)


class ApiKeyRevoked(AccessRefused):
    """The API key was revoked."""

    reasons = ("API_KEY_REVOKED",)


class ScopeMissing(AccessRefused):
    """The API key lacks the scope; metadata has the `scopes` that would do."""

    reasons = ("SCOPE_MISSING",)


class MethodClosed(AccessRefused):
    """Nobody may call the method."""

    reasons = ("METHOD_CLOSED",)


class OriginNotAllowed(AccessRefused):
    """Pages of this origin may not call."""

    reasons = ("ORIGIN_NOT_ALLOWED",)


class NotFound(ZaazError):
    """What the request names does not exist."""


class ApiKeyNotFound(NotFound):
    """No API key has this id."""

    reasons = ("API_KEY_NOT_FOUND",)


class WalletNotFound(NotFound):
    """The user has no wallet."""

    reasons = ("WALLET_NOT_FOUND",)


class TransactionNotFound(NotFound):
    """No transaction has this id."""

    reasons = ("TRANSACTION_NOT_FOUND",)


class UsageNotFound(NotFound):
    """No usage has this id."""

    reasons = ("USAGE_NOT_FOUND",)


class PriceNotFound(NotFound):
    """No price of the model is in force at that time."""

    reasons = ("PRICE_NOT_FOUND",)


class FeatureEndpointNotFound(NotFound):
    """No feature endpoint has this value."""

    reasons = ("FEATURE_ENDPOINT_NOT_FOUND",)


class HoldNotFound(NotFound):
    """No hold has this id."""

    reasons = ("HOLD_NOT_FOUND",)


class RejectedUsageNotFound(NotFound):
    """No rejected usage of this client has this id."""

    reasons = ("REJECTED_USAGE_NOT_FOUND",)


class KeyReused(ZaazError):
    """A key that was used before came with another payload."""


class RequestIdReused(KeyReused):
    """This request_id was used before with another payload."""

    reasons = ("REQUEST_ID_REUSED",)


class UsageKeyReused(KeyReused):
    """This usage_key was used before with another payload."""

    reasons = ("USAGE_KEY_REUSED",)


class Conflict(ZaazError):
    """The state is not what the request assumes."""


class Contention(Conflict):
    """Others kept changing the same wallet."""

    reasons = ("CONTENTION",)
    retryable = True


class EtagMismatch(Conflict):
    """The row has changed since the etag was read."""

    reasons = ("ETAG_MISMATCH",)


class AlreadyReversed(Conflict):
    """The transaction was reversed before; metadata has the `reversal_id`."""

    reasons = ("ALREADY_REVERSED",)


class NotReversible(Conflict):
    """Expiries and reversals cannot be reversed."""

    reasons = ("NOT_REVERSIBLE",)


class OffsetOutOfRange(Conflict):
    """What this writer has and where the server says that it stands do not meet."""

    reasons = ("OFFSET_OUT_OF_RANGE",)


class WriterFenced(Conflict):
    """Another stream has opened this writer_id since."""

    reasons = ("WRITER_FENCED",)


class HoldEnded(Conflict):
    """The hold was captured, released or expired before; metadata has its `state`."""

    reasons = ("HOLD_ENDED",)


class ResyncRequired(Conflict):
    """A resume token is too old, or of another wallet: watch anew without one."""

    reasons = ("RESYNC_REQUIRED",)


class CreditsRefused(ZaazError):
    """The wallet does not allow it."""


class InsufficientCredits(CreditsRefused):
    """Available credits are short. All amounts are micro-credits."""

    reasons = ("INSUFFICIENT_CREDITS",)

    @property
    def available_micros(self) -> int:
        """What could have been taken."""
        return self.integer("available_micros")

    @property
    def required_micros(self) -> int:
        """What was asked for."""
        return self.integer("required_micros")

    @property
    def shortfall_micros(self) -> int:
        """What is missing."""
        return self.integer("shortfall_micros")


class WalletExpired(CreditsRefused):
    """The wallet's subscription has expired."""

    reasons = ("WALLET_EXPIRED",)


class TooManyGrants(CreditsRefused):
    """The wallet holds as many grants as a wallet may."""

    reasons = ("TOO_MANY_GRANTS",)


class TooManyHolds(CreditsRefused):
    """The wallet has as many active holds as a wallet may."""

    reasons = ("TOO_MANY_HOLDS",)


class UsageRefused(ZaazError):
    """What is asked for is switched off, or too large for the user's tier."""


class StreamClosed(ZaazError):
    """The stream was closed, or the client under it."""


class BufferFull(ZaazError):
    """`send_nowait` found no room: await `send`, or try again later."""
