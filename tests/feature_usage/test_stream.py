"""Interactions on the usage stream, beside usage events, message by message."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from zaaz.credits.v1 import feature_usage_log_pb2 as pb
from zaaz.credits.v1 import usage_service_pb2 as usage_pb

from server.credits.feature_usage.store import FeatureUsageStore
from server.kernel.errors import DomainError, Reason
from server.ledger.service import Ledger
from server.mongo.errors import DatabaseUnavailable
from tests.feature_usage.interactions import interaction, new_endpoint, rows_of
from tests.ledger.calls import PRICE, Ingest, event_reasons, refused, soon
from tests.serving import Served, error_info, new_key, new_user, usage_event

FUNDS = 10_000 * PRICE
NOT_FOUND = "FEATURE_ENDPOINT_NOT_FOUND"


def send(
    stream: Ingest,
    offset: int,
    events: Sequence[usage_pb.UsageEvent],
    interactions: Sequence[pb.FeatureUsageEvent],
) -> None:
    frame = usage_pb.UsageFrame(offset=offset, events=events, feature_events=interactions)
    stream.send(usage_pb.IngestUsageRequest(frame=frame))


def said(ack: Any) -> tuple[int, int, int, int]:
    """Through which offset; billed, billed before, kept."""
    return ack.through_offset, ack.billed_events, ack.duplicate_events, ack.logged_events


class Sender:
    """A funded user, an endpoint, and an open stream of a writer."""

    def __init__(self, served: Served, user_id: str, endpoint: str) -> None:
        self.served = served
        self.user_id = user_id
        self._endpoint = endpoint
        self._writer = new_key()
        self.stream: Ingest

    async def open(self) -> int:
        """Where the writer stands."""
        self.stream, opened = await Ingest.opened(self.served, self._writer)
        next_offset: int = opened.next_offset
        return next_offset

    def usage(self, count: int) -> list[usage_pb.UsageEvent]:
        return [usage_event(self.user_id) for _ in range(count)]

    def interactions(self, count: int) -> list[pb.FeatureUsageEvent]:
        return [interaction(self.user_id, self._endpoint) for _ in range(count)]

    async def billed(self) -> int:
        spent = FUNDS - (await self.served.wallet(self.user_id)).credits_micros
        await self.served.assert_sound(self.user_id)
        return spent // PRICE

    async def kept(self) -> set[str]:
        """The usage_keys of all that is kept, each of them once."""
        keys = [kept.usage_key for kept in await rows_of(self.served, self.user_id)]
        assert len(keys) == len(set(keys))
        return set(keys)


@pytest.fixture
async def sender(served: Served) -> Sender:
    endpoint = await new_endpoint(served)
    sender = Sender(served, await served.new_wallet(FUNDS), endpoint.value)
    assert await sender.open() == 0
    return sender


def keys(*events: pb.FeatureUsageEvent) -> set[str]:
    return {event.usage_key for event in events}


class TestFrames:
    async def test_of_both_kinds(self, sender: Sender) -> None:
        logs = sender.interactions(3)
        send(sender.stream, 0, sender.usage(2), logs)
        assert said(await sender.stream.answer("ack")) == (5, 2, 0, 3)
        assert await sender.billed() == 2
        assert await sender.kept() == keys(*logs)
        assert await sender.open() == 5

    async def test_of_interactions_alone_move_the_writer(self, sender: Sender) -> None:
        logs = sender.interactions(3)
        send(sender.stream, 0, [], logs[:2])
        send(sender.stream, 2, [], logs[2:])
        send(sender.stream, 3, sender.usage(1), [])
        assert said(await sender.stream.answer("ack")) == (2, 0, 0, 2)
        assert said(await sender.stream.answer("ack")) == (3, 0, 0, 1)
        assert said(await sender.stream.answer("ack")) == (4, 1, 0, 0)
        assert await sender.kept() == keys(*logs)
        assert await sender.open() == 4

    async def test_pipelined_are_answered_in_order(self, sender: Sender) -> None:
        offset, expected, logs = 0, [], []
        for number in range(40):
            events = sender.usage(number % 3)
            mine = sender.interactions((number + 1) % 3)
            send(sender.stream, offset, events, mine)
            offset += len(events) + len(mine)
            expected.append((offset, len(events), 0, len(mine)))
            logs += mine
        sender.stream.end()
        assert [said(await sender.stream.answer("ack")) for _ in expected] == expected
        assert await sender.stream.rest() == []
        assert await sender.kept() == keys(*logs)
        assert await sender.billed() == sum(billed for _, billed, _, _ in expected)

    async def test_count_both_kinds_against_the_bound(self, sender: Sender) -> None:
        for events, logs in ((1, 1_000), (1_000, 1), (0, 1_001)):
            send(sender.stream, 0, sender.usage(events), sender.interactions(logs))
            rejected = await sender.stream.answer("rejected")
            info = error_info(rejected.error)
            assert (info.reason, info.metadata["events"]) == ("FRAME_SIZE_INVALID", "1001")
        assert await sender.kept() == set()
        send(sender.stream, 0, sender.usage(500), sender.interactions(500))
        assert said(await sender.stream.answer("ack")) == (1_000, 500, 0, 500)


class TestReplays:
    async def test_answer_the_same(self, sender: Sender) -> None:
        events, logs = sender.usage(2), sender.interactions(3)
        logs[1].feature_endpoint = "no.such"
        for _ in range(2):
            send(sender.stream, 0, events, logs)
        for billed in (2, 0):
            ack = await sender.stream.answer("ack")
            assert said(ack) == (5, billed, 2 - billed, 2)
            assert event_reasons(ack) == {3: NOT_FOUND}
        assert await sender.kept() == keys(logs[0], logs[2])
        assert await sender.billed() == 2

    async def test_that_straddle_are_trimmed(self, sender: Sender) -> None:
        events, logs = sender.usage(3), sender.interactions(4)
        send(sender.stream, 0, events, logs[:2])
        assert said(await sender.stream.answer("ack")) == (5, 3, 0, 2)
        send(sender.stream, 1, events[1:], logs)
        assert said(await sender.stream.answer("ack")) == (7, 0, 2, 4)
        more = sender.usage(1)
        send(sender.stream, 6, [], logs[3:])
        send(sender.stream, 7, more, [])
        assert said(await sender.stream.answer("ack")) == (7, 0, 0, 1)
        assert said(await sender.stream.answer("ack")) == (8, 1, 0, 0)
        assert await sender.kept() == keys(*logs)
        assert await sender.billed() == 4

    async def test_of_a_key_by_another_writer_or_call(self, sender: Sender) -> None:
        logs = sender.interactions(2)
        request = pb.RecordFeatureUsageRequest(events=logs[:1])
        await sender.served.usage.RecordFeatureUsage(request)
        send(sender.stream, 0, [], logs)
        send(sender.stream, 2, [], logs)
        assert said(await sender.stream.answer("ack")) == (2, 0, 0, 2)
        assert said(await sender.stream.answer("ack")) == (4, 0, 0, 2)
        assert await sender.kept() == keys(*logs)


class TestRefused:
    async def test_by_index_after_the_usage_events(self, sender: Sender) -> None:
        events, logs = sender.usage(3), sender.interactions(5)
        events[1].ai_model = "no/such"
        logs[0].usage_key = ""
        logs[2].feature_endpoint = "no.such"
        logs[3].occurred_time.FromMilliseconds(1)
        send(sender.stream, 0, events, logs)
        ack = await sender.stream.answer("ack")
        assert said(ack) == (8, 2, 0, 2)
        assert event_reasons(ack) == {
            1: "PRICE_NOT_FOUND",
            3: "FIELD_INVALID",
            5: NOT_FOUND,
            6: "OCCURRED_TIME_OUT_OF_RANGE",
        }
        assert [error.kept for error in ack.errors] == [True, False, False, False]
        assert await sender.kept() == keys(logs[1], logs[4])
        assert await sender.billed() == 2

    async def test_all_of_them(self, sender: Sender) -> None:
        logs = sender.interactions(4)
        for log in logs:
            log.user_id = "x"
        send(sender.stream, 0, [], logs)
        ack = await sender.stream.answer("ack")
        assert said(ack) == (4, 0, 0, 0)
        assert event_reasons(ack) == dict.fromkeys(range(4), "MALFORMED_ID")
        assert await sender.open() == 4

    async def test_no_wallet_is_needed(self, sender: Sender) -> None:
        user_id = new_user()
        log = sender.interactions(1)[0]
        log.user_id = user_id
        send(sender.stream, 0, [], [log])
        assert said(await sender.stream.answer("ack")) == (1, 0, 0, 1)
        assert len(await rows_of(sender.served, user_id)) == 1

    async def test_a_gap_moves_nothing(self, sender: Sender) -> None:
        logs = sender.interactions(2)
        send(sender.stream, 1, [], logs[1:])
        rejected = await sender.stream.answer("rejected")
        assert error_info(rejected.error).reason == "OFFSET_OUT_OF_RANGE"
        assert rejected.next_offset == 0
        send(sender.stream, 0, [], logs)
        assert said(await sender.stream.answer("ack")) == (2, 0, 0, 2)
        assert await sender.kept() == keys(*logs)


class TestBetweenRowsAndSettling:
    async def test_what_dies_there_is_sent_again(
        self, sender: Sender, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def dies(*_: Any, **__: Any) -> None:
            raise DomainError(Reason.OVERLOADED, "it dies here")

        events, logs = sender.usage(2), sender.interactions(2)
        with monkeypatch.context() as patched:
            patched.setattr(Ledger, "settle", dies)
            send(sender.stream, 0, events, logs)
            assert (await sender.stream.answer("rejected")).next_offset == 0
        assert await sender.kept() == keys(*logs)
        assert await sender.billed() == 0
        assert await sender.open() == 0
        send(sender.stream, 0, events, logs)
        assert said(await sender.stream.answer("ack")) == (4, 2, 0, 2)
        assert await sender.kept() == keys(*logs)
        assert await sender.billed() == 2

    async def test_an_ack_never_comes_before_the_rows(
        self, sender: Sender, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def is_away(*_: Any) -> None:
            raise DatabaseUnavailable("it is away")

        events, logs = sender.usage(2), sender.interactions(2)
        with monkeypatch.context() as patched:
            patched.setattr(FeatureUsageStore, "insert", is_away)
            send(sender.stream, 0, events, logs)
            send(sender.stream, 4, sender.usage(1), [])
            rejected = await sender.stream.answer("rejected")
            assert error_info(rejected.error).reason == "DEPENDENCY_UNAVAILABLE"
            rejected = await sender.stream.answer("rejected")
            assert error_info(rejected.error).reason == "OFFSET_OUT_OF_RANGE"
        assert await sender.billed() == 0
        send(sender.stream, 0, events, logs)
        assert said(await sender.stream.answer("ack")) == (4, 2, 0, 2)
        assert await sender.kept() == keys(*logs)

    async def test_another_stream_takes_the_writer_over_there(
        self, sender: Sender, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inserted, insert = asyncio.Event(), FeatureUsageStore.insert

        async def goes_no_further(*arguments: Any) -> None:
            await insert(*arguments)
            inserted.set()
            await asyncio.Event().wait()

        logs, older = sender.interactions(2), sender.stream
        with monkeypatch.context() as patched:
            patched.setattr(FeatureUsageStore, "insert", goes_no_further)
            send(older, 0, sender.usage(1), logs)
            await soon(inserted.wait())
            assert await sender.open() == 0
            with refused("WRITER_FENCED"):
                await older.rest()
        send(sender.stream, 0, sender.usage(1), logs)
        assert said(await sender.stream.answer("ack")) == (3, 1, 0, 2)
        assert await sender.kept() == keys(*logs)
        assert await sender.billed() == 1
