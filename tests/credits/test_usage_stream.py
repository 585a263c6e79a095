"""IngestUsage, message by message, on a real server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from zaaz.credits.v1 import usage_service_pb2 as pb

from tests.ledger.calls import PRICE, Ingest, event_reasons, refused
from tests.serving import (
    Served,
    connected,
    error_info,
    make_key,
    new_key,
    new_user,
    reason_of,
    usage_event,
)


@pytest.fixture(autouse=True)
async def _no_stream_outlives_its_test() -> AsyncIterator[None]:
    yield
    await Ingest.close_all()


async def funded(served: Served) -> str:
    return await served.new_wallet(10_000 * PRICE)


async def billed(served: Served, user_id: str) -> int:
    """How many events the wallet has paid."""
    spent = 10_000 * PRICE - (await served.wallet(user_id)).credits_micros
    assert spent % PRICE == 0
    await served.assert_sound(user_id)
    return spent // PRICE


class TestOpening:
    async def test_tells_where_to_go_on_and_the_bounds(self, served: Served) -> None:
        stream, opened = await Ingest.opened(served, new_key())
        assert opened.next_offset == 0
        assert opened.max_frame_events == 1_000
        assert opened.max_inflight_frames > 1
        stream.end()
        assert await stream.rest() == []

    async def test_a_frame_before_open_ends_the_stream(self, served: Served) -> None:
        user_id = await funded(served)
        stream = Ingest(served)
        stream.frame(0, usage_event(user_id))
        with refused("STREAM_NOT_OPEN"):
            await stream.rest()
        assert await billed(served, user_id) == 0

    async def test_nothing_at_all_before_open_ends_the_stream(self, served: Served) -> None:
        stream = Ingest(served)
        stream.send(pb.IngestUsageRequest())
        with refused("STREAM_NOT_OPEN"):
            await stream.rest()

    async def test_a_second_open_ends_the_stream_once_all_is_answered(self, served: Served) -> None:
        user_id, writer = await funded(served), new_key()
        stream, _ = await Ingest.opened(served, writer)
        stream.frame(0, usage_event(user_id))
        stream.open(writer)
        assert (await stream.answer("ack")).through_offset == 1
        with refused("STREAM_ALREADY_OPEN"):
            await stream.rest()
        assert await billed(served, user_id) == 1

    @pytest.mark.parametrize("writer", ["", "a b", "w" * 129])
    async def test_refuses_a_bad_writer_id(self, served: Served, writer: str) -> None:
        stream = Ingest(served)
        stream.open(writer)
        with refused("FIELD_INVALID"):
            await stream.rest()

    async def test_a_stream_that_says_nothing_ends_well(self, served: Served) -> None:
        stream = Ingest(served)
        stream.end()
        assert await stream.rest() == []


class TestFrames:
    async def test_pipelined_ones_are_answered_in_order(self, served: Served) -> None:
        user_id = await funded(served)
        stream, opened = await Ingest.opened(served, new_key())
        sizes = [1 + number % 3 for number in range(3 * opened.max_inflight_frames)]
        offsets = [sum(sizes[:number]) for number in range(len(sizes))]
        for offset, size in zip(offsets, sizes, strict=True):
            stream.frame(offset, *(usage_event(user_id) for _ in range(size)))
        stream.end()
        for offset, size in zip(offsets, sizes, strict=True):
            ack = await stream.answer("ack")
            assert (ack.through_offset, ack.billed_events) == (offset + size, size)
            assert (ack.duplicate_events, list(ack.errors)) == (0, [])
        assert await stream.rest() == []
        assert await billed(served, user_id) == sum(sizes)

    async def test_half_closing_answers_everything(self, served: Served) -> None:
        user_id = await funded(served)
        stream, _ = await Ingest.opened(served, new_key())
        for offset in range(8):
            stream.frame(offset, usage_event(user_id))
        stream.end()
        for offset in range(8):
            assert (await stream.answer("ack")).through_offset == offset + 1
        assert await stream.rest() == []

    async def test_a_gap_is_rejected_and_can_be_closed(self, served: Served) -> None:
        user_id = await funded(served)
        stream, _ = await Ingest.opened(served, new_key())
        stream.frame(0, usage_event(user_id))
        stream.frame(2, usage_event(user_id))
        stream.frame(3, usage_event(user_id))
        assert (await stream.answer("ack")).through_offset == 1
        for offset in (2, 3):
            rejected = await stream.answer("rejected")
            assert (rejected.offset, rejected.next_offset) == (offset, 1)
            info = error_info(rejected.error)
            assert info.reason == "OFFSET_OUT_OF_RANGE"
            assert dict(info.metadata) == {"next_offset": "1", "offset": str(offset)}
        stream.frame(1, usage_event(user_id), usage_event(user_id))
        assert (await stream.answer("ack")).through_offset == 3
        assert await billed(served, user_id) == 3

    async def test_a_replayed_one_is_acknowledged_and_moves_nothing(self, served: Served) -> None:
        user_id = await funded(served)
        stream, _ = await Ingest.opened(served, new_key())
        events = [usage_event(user_id) for _ in range(3)]
        # By its offset, so other events at the same place are not even looked at.
        others = [usage_event(user_id) for _ in range(3)]
        for frame in (events, events, others, events[:1]):
            stream.frame(0, *frame)
        answers = [await stream.answer("ack") for _ in range(4)]
        assert [a.through_offset for a in answers] == [3, 3, 3, 1]
        assert [a.billed_events for a in answers] == [3, 0, 0, 0]
        assert [a.duplicate_events for a in answers] == [0, 3, 3, 1]
        assert await billed(served, user_id) == 3

    async def test_one_that_straddles_is_trimmed(self, served: Served) -> None:
        user_id = await funded(served)
        stream, _ = await Ingest.opened(served, new_key())
        events = [usage_event(user_id) for _ in range(5)]
        bad = usage_event(user_id, output_tokens=-1)
        stream.frame(0, *events[:3])
        stream.frame(1, *events[1:], bad)
        await stream.answer("ack")
        ack = await stream.answer("ack")
        assert (ack.through_offset, ack.billed_events, ack.duplicate_events) == (6, 2, 2)
        # Its place in the frame as it was sent.
        assert event_reasons(ack) == {4: "FIELD_INVALID"}
        assert await billed(served, user_id) == 5

    async def test_a_key_billed_before_is_a_duplicate_at_any_offset(self, served: Served) -> None:
        user_id = await funded(served)
        event = usage_event(user_id)
        await served.record(event)
        stream, _ = await Ingest.opened(served, new_key())
        stream.frame(0, event, event, usage_event(user_id))
        ack = await stream.answer("ack")
        assert (ack.billed_events, ack.duplicate_events) == (1, 2)
        assert await billed(served, user_id) == 2

    async def test_empty_and_oversize_ones_are_rejected(self, served: Served) -> None:
        user_id = await funded(served)
        stream, opened = await Ingest.opened(served, new_key())
        stream.frame(0)
        stream.frame(0, *[usage_event(user_id)] * (opened.max_frame_events + 1))
        stream.frame(0, usage_event(user_id))
        for events in ("0", "1001"):
            rejected = await stream.answer("rejected")
            info = error_info(rejected.error)
            assert (info.reason, info.metadata["events"]) == ("FRAME_SIZE_INVALID", events)
            assert (rejected.offset, rejected.next_offset) == (0, 0)
        assert (await stream.answer("ack")).through_offset == 1

    async def test_a_negative_offset_is_rejected(self, served: Served) -> None:
        user_id = await funded(served)
        stream, _ = await Ingest.opened(served, new_key())
        stream.frame(-2, *(usage_event(user_id) for _ in range(3)))
        rejected = await stream.answer("rejected")
        assert error_info(rejected.error).reason == "FIELD_INVALID"
        assert (rejected.offset, rejected.next_offset) == (-2, 0)
        stream.frame(-2, usage_event(user_id), usage_event(user_id, output_tokens=-1))
        assert error_info((await stream.answer("rejected")).error).reason == "FIELD_INVALID"
        stream.frame(0, usage_event(user_id))
        assert (await stream.answer("ack")).billed_events == 1
        assert await billed(served, user_id) == 1

    async def test_a_full_one_with_hundreds_of_bad_events(self, served: Served) -> None:
        user_id = await funded(served)
        stranger = new_user()
        expected: dict[int, str] = {}
        events = []
        for index in range(1_000):
            fields: dict[str, Any] = {"user_id": user_id}
            if index % 4 == 1:
                fields, expected[index] = {**fields, "input_tokens": -1}, "FIELD_INVALID"
            elif index % 4 == 2:
                fields, expected[index] = {"user_id": "x"}, "MALFORMED_ID"
            elif index % 4 == 3:
                fields, expected[index] = {"user_id": stranger}, "WALLET_NOT_FOUND"
            events.append(usage_event(**fields))
        stream, _ = await Ingest.opened(served, new_key())
        stream.frame(0, *events)
        ack = await stream.answer("ack")
        assert (ack.through_offset, ack.billed_events) == (1_000, 250)
        assert event_reasons(ack) == expected
        assert await billed(served, user_id) == 250

    async def test_one_of_bad_events_alone_moves_the_writer(self, served: Served) -> None:
        writer = new_key()
        stream, _ = await Ingest.opened(served, writer)
        stream.frame(0, usage_event(new_user()), usage_event("x"))
        assert (await stream.answer("ack")).through_offset == 2
        stream.end()
        assert await stream.rest() == []
        _, opened = await Ingest.opened(served, writer)
        assert opened.next_offset == 2


class TestResuming:
    async def test_goes_on_where_the_writer_was(self, served: Served) -> None:
        user_id, writer = await funded(served), new_key()
        events = [usage_event(user_id) for _ in range(6)]
        stream, _ = await Ingest.opened(served, writer)
        stream.frame(0, *events[:4])
        assert (await stream.answer("ack")).through_offset == 4
        stream.cancel()
        again, opened = await Ingest.opened(served, writer)
        assert opened.next_offset == 4
        again.frame(4, *events[4:])
        assert (await again.answer("ack")).through_offset == 6
        assert await billed(served, user_id) == 6

    async def test_after_a_cut_whatever_was_on_its_way_is_billed_once(self, served: Served) -> None:
        """Nobody has read the answers: the writer's offset says what was settled."""
        user_id, writer = await funded(served), new_key()
        events = [usage_event(user_id) for _ in range(40)]
        for _ in range(5):
            stream, opened = await Ingest.opened(served, writer)
            for offset in range(opened.next_offset, 40, 4):
                stream.frame(offset, *events[offset : offset + 4])
            stream.cancel()
        stream, opened = await Ingest.opened(served, writer)
        stream.frame(opened.next_offset, *events[opened.next_offset :])
        if opened.next_offset < 40:
            assert (await stream.answer("ack")).through_offset == 40
        assert await billed(served, user_id) == 40


class TestTakingOver:
    async def test_the_older_stream_ends_and_the_newer_goes_on(self, served: Served) -> None:
        user_id, writer = await funded(served), new_key()
        older, _ = await Ingest.opened(served, writer)
        older.frame(0, usage_event(user_id))
        await older.answer("ack")
        newer, opened = await Ingest.opened(served, writer)
        assert opened.next_offset == 1
        with refused("WRITER_FENCED") as refusal:
            await older.rest()
        assert refusal.metadata == {"writer_id": writer}
        newer.frame(1, usage_event(user_id))
        assert (await newer.answer("ack")).through_offset == 2
        assert await billed(served, user_id) == 2

    async def test_while_both_write_nothing_is_billed_twice(self, served: Served) -> None:
        user_id, writer = await funded(served), new_key()
        events = [usage_event(user_id) for _ in range(200)]

        async def write() -> bool:
            """Sends all there is from where the writer is. Whether it came through."""
            stream, opened = await Ingest.opened(served, writer)
            try:
                for offset in range(opened.next_offset, 200, 5):
                    stream.frame(offset, *events[offset : offset + 5])
                stream.end()
                await stream.rest()
            except grpc.aio.AioRpcError as error:
                return _unless_fenced(error)
            return True

        # Offsets that meet no frame's bounds are trimmed, so any next_offset will do.
        await asyncio.gather(*(write() for _ in range(6)))
        while (await write()) is False:
            pass
        assert await billed(served, user_id) == 200

    async def test_of_streams_opened_at_once_the_last_one_stays(self, served: Served) -> None:
        user_id = await funded(served)
        for _ in range(10):
            writer = new_key()
            streams = [Ingest(served) for _ in range(4)]
            for stream in streams:
                stream.open(writer)
            await asyncio.gather(*(stream.answer("opened") for stream in streams))
            event = usage_event(user_id)
            alive = await asyncio.gather(*(_bills(stream, event) for stream in streams))
            assert sum(alive) == 1, alive
        assert await billed(served, user_id) == 10


class TestClients:
    async def test_writers_and_keys_of_two_do_not_meet(
        self, served: Served, mongo_url: str
    ) -> None:
        user_id, writer = await funded(served), new_key()
        event = usage_event(user_id)
        key = await make_key(mongo_url, "test_served", "second", ["usage.write"])
        first, _ = await Ingest.opened(served, writer)
        async with connected(served.target, key) as other:
            second, opened = await Ingest.opened(other, writer)
            assert opened.next_offset == 0
            for stream in (first, second):
                stream.frame(0, event)
            for stream in (first, second):
                ack = await stream.answer("ack")
                assert (ack.through_offset, ack.billed_events) == (1, 1)
            second.end()
            assert await second.rest() == []
        assert await billed(served, user_id) == 2
        clients = {row.client_id for row in (await served.transactions(user_id))[1:]}
        assert clients == {"tests", "second"}


async def _bills(stream: Ingest, event: pb.UsageEvent) -> bool:
    """Whether the stream stays and answers a frame; False when another has its writer."""
    try:
        stream.frame(0, event)
        await stream.answer("ack")
    except grpc.aio.AioRpcError as error:
        return _unless_fenced(error)
    return True


def _unless_fenced(error: grpc.aio.AioRpcError) -> bool:
    """False; any other end is an error."""
    # Where the end of a stream meets a message on its way out, gRPC's client loses the status.
    lost = (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "Internal error from Core")
    if not lost and reason_of(error) != "WRITER_FENCED":
        raise error
    return False
