"""From statuses to typed errors."""

import pickle
from datetime import timedelta

import grpc
import pytest
import zaaz_client
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from zaaz.common.v1.error_reason_pb2 import ErrorReason
from zaaz_client import (
    FieldViolation,
    InsufficientCredits,
    InternalError,
    Unavailable,
    ZaazError,
    from_rpc_error,
    from_status,
)
from zaaz_client.error_tables import CLASS_BY_CODE, CLASS_BY_REASON
from zaaz_client.errors import FieldInvalid, MessageTooLarge

from .peer import status

PREFIX = "ERROR_REASON_"
REASONS = {value.name.removeprefix(PREFIX) for value in ErrorReason.DESCRIPTOR.values} - {
    "UNSPECIFIED"
}


def rpc_error(
    code: grpc.StatusCode, details: str, trailer: bytes | None = None
) -> grpc.aio.AioRpcError:
    metadata = grpc.aio.Metadata()
    if trailer is not None:
        metadata.add("grpc-status-details-bin", trailer)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, details)


def test_each_reason_of_the_contract_has_its_class() -> None:
    assert set(CLASS_BY_REASON) == REASONS
    for reason, kind in CLASS_BY_REASON.items():
        assert kind.__name__ == "".join(word.title() for word in reason.split("_")) or (
            kind is InternalError
        )


def test_each_code_but_ok_has_its_class() -> None:
    assert set(CLASS_BY_CODE) >= set(grpc.StatusCode) - {grpc.StatusCode.OK}


def test_everything_exported_exists() -> None:
    assert all(hasattr(zaaz_client, name) for name in zaaz_client.__all__)


def test_details_arrive_typed() -> None:
    made = status(
        grpc.StatusCode.FAILED_PRECONDITION,
        "INSUFFICIENT_CREDITS",
        available_micros="10",
        required_micros="40",
        shortfall_micros="30",
    )
    delay = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))
    made.details.add().Pack(delay)
    error = from_rpc_error(
        rpc_error(grpc.StatusCode.FAILED_PRECONDITION, "short", made.SerializeToString())
    )
    assert isinstance(error, InsufficientCredits)
    assert (error.available_micros, error.required_micros, error.shortfall_micros) == (10, 40, 30)
    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert error.retry_delay == timedelta(seconds=1.5)
    assert str(error) == "INSUFFICIENT_CREDITS: short"
    assert not error.retryable


def test_violations_name_their_fields() -> None:
    made = status(grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", field="page_size")
    violations = error_details_pb2.BadRequest()
    violations.field_violations.add(field="page_size", description="must be 0 or more")
    made.details.add().Pack(violations)
    error = from_status(made)
    assert isinstance(error, FieldInvalid)
    assert error.violations == (FieldViolation("page_size", "must be 0 or more"),)


@pytest.mark.parametrize("trailer", [None, b"\xff\xff", b""])
def test_a_failure_of_the_transport_has_no_reason(trailer: bytes | None) -> None:
    error = from_rpc_error(rpc_error(grpc.StatusCode.UNAVAILABLE, "refused", trailer))
    assert type(error) is Unavailable
    assert (error.reason, str(error), error.retryable) == ("", "refused", True)


def test_a_reason_of_a_newer_server_arrives_as_its_family() -> None:
    error = from_status(status(grpc.StatusCode.NOT_FOUND, "PLAN_NOT_FOUND", id="1"))
    assert type(error) is zaaz_client.NotFound
    assert error.reason == "PLAN_NOT_FOUND"
    assert error.metadata == {"id": "1"}


def test_a_reason_of_another_domain_is_not_ours() -> None:
    made = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="proxy")
    made.details.add().Pack(error_details_pb2.ErrorInfo(reason="CONTENTION", domain="proxy"))
    assert type(from_status(made)) is Unavailable


def test_grpc_has_no_code_of_its_own_for_large_messages() -> None:
    text = "CLIENT: Received message larger than max (17000000 vs. 16777216)"
    error = from_rpc_error(rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, text))
    assert isinstance(error, MessageTooLarge)
    assert not error.retryable


def test_metadata_that_is_no_number_is_none() -> None:
    error = from_status(
        status(grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS", shortfall_micros="x")
    )
    assert isinstance(error, InsufficientCredits)
    assert error.shortfall_micros == error.available_micros == 0


def test_errors_survive_pickling() -> None:
    error = from_status(status(grpc.StatusCode.ABORTED, "CONTENTION", attempts="3"))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.metadata) == (str(error), error.metadata)


def test_only_what_may_succeed_later_is_retryable() -> None:
    retryable = {kind.__name__ for kind in CLASS_BY_REASON.values() if kind.retryable}
    assert retryable == {
        "InternalError",
        "DependencyUnavailable",
        "Overloaded",
        "RateLimited",
        "TooManyWatchers",
        "DeadlineExceeded",
        "Draining",
        "Contention",
    }
    assert not ZaazError.retryable
