"""Reasons, codes and statuses."""

import pytest
from google.rpc import error_details_pb2

from server.kernel.errors import DomainError, FieldViolation, Reason
from server.rpc.errors import CODES, to_status, understand
from tests.rpc.edge import detail

TRAILER_BYTES = 8 * 1024  # what clients take by default


def test_every_reason_has_a_code() -> None:
    assert set(CODES) == set(Reason)


def test_a_status_names_reason_domain_and_metadata() -> None:
    error = DomainError(Reason.INSUFFICIENT_CREDITS, "short", {"shortfall_micros": 30})

    status = to_status(error)

    info = detail(status, error_details_pb2.ErrorInfo)
    assert info is not None
    assert (status.code, status.message) == (9, "short")
    assert (info.reason, info.domain) == ("INSUFFICIENT_CREDITS", "zaaz")
    assert dict(info.metadata) == {"shortfall_micros": "30"}


def test_violations_become_a_bad_request() -> None:
    violation = FieldViolation("page_size", "must not be negative")

    status = to_status(DomainError(Reason.FIELD_INVALID, "x", violations=[violation]))

    bad_request = detail(status, error_details_pb2.BadRequest)
    assert bad_request is not None
    (found,) = bad_request.field_violations
    assert (found.field, found.description) == ("page_size", "must not be negative")


@pytest.mark.parametrize(
    ("error", "milliseconds"),
    [
        (DomainError(Reason.OVERLOADED, "x", retry_delay_seconds=2.5), 2500),
        (DomainError(Reason.WALLET_NOT_FOUND, "x", retry_delay_seconds=1), 1000),
        (DomainError(Reason.CONTENTION, "x"), 50),
        (DomainError(Reason.DEPENDENCY_UNAVAILABLE, "x"), 1000),
        (DomainError(Reason.DRAINING, "x"), 100),
        (DomainError(Reason.OVERLOADED, "x"), 500),
    ],
)
def test_what_can_be_retried_says_when(error: DomainError, milliseconds: int) -> None:
    retry = detail(to_status(error), error_details_pb2.RetryInfo)

    assert retry is not None
    assert retry.retry_delay.ToMilliseconds() == milliseconds


@pytest.mark.parametrize("reason", [Reason.INTERNAL, Reason.ETAG_MISMATCH, Reason.WRITER_FENCED])
def test_what_should_not_be_repeated_has_no_retry_info(reason: Reason) -> None:
    assert detail(to_status(DomainError(reason, "x")), error_details_pb2.RetryInfo) is None


def test_a_status_always_fits_the_trailers() -> None:
    violations = [FieldViolation("f" * 1000, "ü" * 1000)] * 1000
    error = DomainError(
        Reason.FIELD_INVALID, "ü" * 9000, {"field": "x" * 9000}, violations=violations
    )

    status = to_status(error)

    bad_request = detail(status, error_details_pb2.BadRequest)
    assert bad_request is not None
    assert bad_request.field_violations
    # The status, and its message once more as grpc-message, percent-encoded.
    assert status.ByteSize() + 6 * len(status.message) < TRAILER_BYTES


def test_the_translated_is_not_taken_for_a_defect() -> None:
    gone = DomainError(Reason.DEPENDENCY_UNAVAILABLE, "the database is away")

    assert understand(ConnectionError("10.0.0.7"), "/a/B", lambda _: gone) is gone


def test_a_task_groups_only_failure_is_its_reason() -> None:
    fenced = DomainError(Reason.WRITER_FENCED, "x")
    group = ExceptionGroup("tasks", [ExceptionGroup("tasks", [fenced])])

    assert understand(group, "/a/B", lambda _: None) is fenced
