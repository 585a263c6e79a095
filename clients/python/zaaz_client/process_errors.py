# ruff: noqa: N818 - named as the other errors are
"""What `credit_process` raises beside the errors of its calls: see the tree in `errors`."""

from collections.abc import Iterable
from typing import TypeVar

from grpc import StatusCode
from zaaz.common.v1.error_reason_pb2 import ErrorReason
from zaaz.credits.v1.credits_process_service_pb2 import AuthorizeUsageResponse, Denial

from zaaz_client.error_tables import CLASS_BY_REASON
from zaaz_client.errors import ErrorDetails, InsufficientCredits, ZaazError

_PREFIX = "ERROR_REASON_"
_Error = TypeVar("_Error", bound=ZaazError)


class NotAuthorized(ZaazError):
    """The user may not do it. `denials` has every reason, each as its own typed error.

    `reason`, `message` and `metadata` are those of the first.
    """

    def __init__(self, denials: Iterable[ZaazError], estimate_micros: int = 0) -> None:
        self.denials = tuple(denials)
        self.estimate_micros = estimate_micros
        """What the use would have cost at most, in micro-credits."""
        first = self.denials[0] if self.denials else ZaazError("the server gives no reason")
        super().__init__(first.message, first.details)

    def __reduce__(self) -> tuple[type["NotAuthorized"], tuple[object, ...]]:
        return type(self), (self.denials, self.estimate_micros)

    def __str__(self) -> str:
        return "; ".join(map(str, self.denials)) or self.message

    def find(self, kind: type[_Error]) -> _Error | None:
        """The first denial of this class."""
        return next((denial for denial in self.denials if isinstance(denial, kind)), None)

    @property
    def shortfall_micros(self) -> int:
        """The micro-credits that are missing; 0 where credits are not what it wants for."""
        short = self.find(InsufficientCredits)
        return 0 if short is None else short.shortfall_micros


class UsageNotReported(ZaazError):
    """The work is done and nobody has said what it used: its hold was released, nothing billed."""


def not_authorized(answer: AuthorizeUsageResponse) -> NotAuthorized:
    """The error that a refusal becomes."""
    return NotAuthorized(map(_denial, answer.denials), answer.estimate.credits_micros)


def _denial(denial: Denial) -> ZaazError:
    # A reason that is newer than these stubs has a number only.
    known = ErrorReason.DESCRIPTOR.values_by_number.get(denial.reason)
    reason = known.name.removeprefix(_PREFIX) if known else str(int(denial.reason))
    details = ErrorDetails(StatusCode.FAILED_PRECONDITION, reason, dict(denial.metadata))
    return CLASS_BY_REASON.get(reason, ZaazError)(denial.message, details)
