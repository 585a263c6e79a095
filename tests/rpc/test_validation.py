"""The contract's rules: what is wrong, where, and for what reason."""

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from zaaz.credits.v1 import credits_service_pb2 as credits_pb
from zaaz.credits.v1 import usage_service_pb2 as usage_pb
from zaaz.wallet.v1 import wallet_service_pb2 as wallet_pb

from server.kernel.errors import DomainError, Reason
from server.rpc.validation import MAX_VIOLATIONS, check, violations
from tests.rpc.edge import USER


def refusal(message: Message) -> DomainError:
    with pytest.raises(DomainError) as caught:
        check(message)
    return caught.value


def test_what_keeps_the_rules_passes() -> None:
    message = wallet_pb.GetWalletRequest(user_id=USER)

    check(message)

    assert violations(message) == []


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (wallet_pb.GetWalletRequest(user_id="x"), "user_id"),
        (credits_pb.GetCreditsTransactionRequest(id=USER.upper()), "id"),
        (usage_pb.DiscardRejectedUsageRequest(ids=[USER, "x"]), "ids[1]"),
        (usage_pb.ListRejectedUsageRequest(user_id="x"), "user_id"),
    ],
)
def test_ids_alone_are_malformed(message: Message, field: str) -> None:
    error = refusal(message)

    assert error.reason is Reason.MALFORMED_ID
    assert error.metadata == {"field": field}
    assert [violation.field for violation in error.violations] == [field]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (wallet_pb.CreateWalletRequest(request_id="", user_id=USER), "request_id"),
        (wallet_pb.CreateWalletRequest(request_id="ü", user_id=USER), "request_id"),
        (usage_pb.IngestUsageRequest(open=usage_pb.OpenUsageStream()), "open.writer_id"),
        (wallet_pb.ListWalletsRequest(page_size=-1), "page_size"),
        (wallet_pb.UpdateWalletRequest(), "wallet"),
        (usage_pb.DiscardRejectedUsageRequest(ids=[USER, USER]), "ids"),
    ],
)
def test_other_fields_are_invalid(message: Message, field: str) -> None:
    error = refusal(message)

    assert error.reason is Reason.FIELD_INVALID
    assert error.metadata == {"field": field}


def test_an_id_beside_another_field_is_one_of_two() -> None:
    error = refusal(wallet_pb.CreateWalletRequest(request_id="", user_id="x"))

    assert error.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in error.violations] == ["request_id", "user_id"]


def test_paths_lead_through_lists_and_maps() -> None:
    item = credits_pb.ConsumeCreditsRequest(
        request_id="a", user_id=USER, credits_micros=1, labels={"k": "v" * 256}
    )
    good = credits_pb.ConsumeCreditsRequest(request_id="a", user_id=USER, credits_micros=1)

    (violation,) = violations(credits_pb.BatchConsumeCreditsRequest(requests=[good, item]))

    assert violation.field == 'requests[1].labels["k"]'
    assert violation.description == "must be at most 255 characters"


def test_a_frames_events_are_named_by_index() -> None:
    event = usage_pb.UsageEvent(usage_key="k", user_id=USER, occurred_time=Timestamp(seconds=1))
    bad = usage_pb.UsageEvent(usage_key="k", user_id="x", occurred_time=Timestamp(seconds=1))

    (violation,) = violations(usage_pb.UsageFrame(events=[event, event, event, bad]))

    assert violation.field == "events[3].user_id"


def test_a_frame_is_left_to_its_stream() -> None:
    frame = usage_pb.UsageFrame(offset=-1, events=[usage_pb.UsageEvent()])

    check(usage_pb.IngestUsageRequest(frame=frame))


def test_violations_are_bounded() -> None:
    bad = usage_pb.UsageFrame(events=[usage_pb.UsageEvent()] * 1000)

    assert len(violations(bad)) == MAX_VIOLATIONS
