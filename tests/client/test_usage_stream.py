"""The usage stream against a peer that misbehaves on request."""

import asyncio
import random
from collections.abc import Callable

import grpc
import pytest
from zaaz.credits.v1.usage_service_pb2 import UsageFrameAck
from zaaz_client import (
    BufferFull,
    OffsetOutOfRange,
    PriceNotFound,
    RejectedEvent,
    Stalled,
    StreamClosed,
    Unavailable,
    UsageStreamSettings,
    WriterFenced,
    ZaazClient,
    ZaazError,
)
from zaaz_client.errors import ApiKeyRevoked, FrameSizeInvalid, InternalError, MessageTooLarge
from zaaz_client.usage_queue import Frame
from zaaz_client.usage_results import UsageResults

from .peer import KEY, Do, Peer, event, interaction, keys, mixed, script, status

QUICK = UsageStreamSettings(
    linger_seconds=0.001, min_backoff_seconds=0.001, max_backoff_seconds=0.02
)
EVENTS = 95


async def deliver(client: ZaazClient, count: int = EVENTS) -> None:
    async with asyncio.timeout(30), client.usage_stream("w", settings=QUICK) as stream:
        await stream.send_many(event(index) for index in range(count))
        await stream.flush()
        counters = stream.counters
        assert counters.sent == counters.acknowledged == count
        told = counters.billed + counters.duplicates + counters.refused + counters.unreported
        assert told == count
        assert stream.next_offset == stream.acknowledged_offset == count


async def test_delivers_in_order_and_sends_the_key(peer: Peer, client: ZaazClient) -> None:
    await deliver(client)
    assert peer.writers["w"].keys == keys(EVENTS)
    assert peer.writers["w"].events[3] == event(3)
    assert peer.metadata[0]["authorization"] == f"Bearer {KEY}"
    assert peer.opens == 1
    assert peer.most_inflight_frames <= peer.max_inflight_frames


@pytest.mark.parametrize(
    "trouble",
    [
        Do.DROP_BEFORE,
        Do.DROP_AFTER,
        Do.DRAIN,
        Do.END,
        Do.REJECT,
        Do.THROTTLE,
        Do.GAP,
        Do.WRONG_ACK,
        Do.INTERNAL,
        Do.BROKEN,
    ],
)
async def test_trouble_at_any_frame_loses_and_repeats_nothing(
    peer: Peer, client: ZaazClient, trouble: Do
) -> None:
    for frame in range(EVENTS // peer.max_frame_events + 1):
        peer.writers.clear()
        peer.script = script([*[Do.ACK] * frame, trouble])
        opens = peer.opens
        await deliver(client)
        assert peer.writers["w"].keys == keys(EVENTS), frame
        disturbed = frame * peer.max_frame_events < EVENTS
        in_place = trouble in {Do.REJECT, Do.THROTTLE} or not disturbed
        assert peer.opens - opens == (1 if in_place else 2), frame


@pytest.mark.parametrize("seed", range(12))
async def test_any_mixture_of_troubles_is_survived(
    peer: Peer, client: ZaazClient, seed: int
) -> None:
    chance = random.Random(seed)
    troubles = [
        Do.DROP_BEFORE,
        Do.DROP_AFTER,
        Do.DRAIN,
        Do.END,
        Do.REJECT,
        Do.THROTTLE,
        Do.GAP,
        Do.INTERNAL,
    ]
    peer.throttle_seconds = 0.001
    peer.max_inflight_frames = chance.randint(1, 6)
    peer.max_frame_events = chance.randint(1, 12)
    peer.script = lambda _: chance.choice(troubles) if chance.random() < 0.4 else Do.ACK
    await deliver(client, 200)
    assert peer.writers["w"].keys == keys(200)


async def test_a_killed_server_is_found_again(peer: Peer, client: ZaazClient) -> None:
    async with asyncio.timeout(30), client.usage_stream("w", settings=QUICK) as stream:
        for round_ in range(4):
            await stream.send_many(event(round_ * 50 + index) for index in range(50))
            await peer.wait_received(round_ + 1)
            await peer.stop()
            await peer.start()
        await stream.flush()
    assert peer.writers["w"].keys == keys(200)
    assert stream.counters.reopened >= 1


async def test_a_frame_without_an_answer_is_sent_again(peer: Peer, client: ZaazClient) -> None:
    peer.script = script([Do.SILENT])
    settings = UsageStreamSettings(
        linger_seconds=0, answer_timeout_seconds=0.2, min_backoff_seconds=0.001
    )
    async with asyncio.timeout(30), client.usage_stream("w", settings=settings) as stream:
        await stream.send(event(0))
        await stream.flush()
    assert peer.writers["w"].keys == keys(1)
    assert peer.opens == 2


async def test_another_stream_of_the_writer_ends_this_one(peer: Peer, client: ZaazClient) -> None:
    older = client.usage_stream("w", settings=QUICK)
    await older.__aenter__()
    await older.send(event(0))
    await older.flush()
    async with client.usage_stream("w", settings=QUICK) as newer:
        assert newer.next_offset == 1
        await older.send(event(100))
        with pytest.raises(WriterFenced):
            await older.flush()
        await newer.send(event(1))
    with pytest.raises(WriterFenced):
        await older.close()
    assert [e.usage_key for e in older.unacknowledged_events()] == ["key-100"]
    assert peer.writers["w"].keys == keys(2)


@pytest.mark.parametrize(
    ("end", "raised"),
    [(Do.FENCE, WriterFenced), (Do.REVOKE, ApiKeyRevoked), (Do.SIZE, FrameSizeInvalid)],
)
async def test_what_cannot_be_repaired_is_raised_everywhere(
    peer: Peer, client: ZaazClient, end: Do, raised: type[ZaazError]
) -> None:
    peer.script = script([Do.ACK], then=end)
    stream = client.usage_stream("w", settings=QUICK)
    with pytest.raises(raised):
        async with asyncio.timeout(30), stream:
            await stream.send_many(event(index) for index in range(25))
    for call in (stream.flush, stream.close):
        with pytest.raises(raised):
            await call()
    with pytest.raises(raised):
        await stream.send(event(25))
    with pytest.raises(raised):
        stream.send_nowait(event(25))
    assert [e.usage_key for e in stream.unacknowledged_events()] == keys(25, 10)
    assert peer.opens == 1


@pytest.mark.parametrize("trouble", [Do.INTERNAL, Do.BROKEN])
async def test_a_server_that_always_breaks_is_given_up(
    peer: Peer, client: ZaazClient, trouble: Do
) -> None:
    peer.script = lambda _: trouble
    stream = client.usage_stream("w", settings=QUICK)
    with pytest.raises(InternalError):
        async with asyncio.timeout(30), stream:
            await stream.send(event(0))


async def test_without_progress_it_stalls_when_told_to(peer: Peer, client: ZaazClient) -> None:
    settings = UsageStreamSettings(
        stall_timeout_seconds=0.2, min_backoff_seconds=0.001, max_backoff_seconds=0.02
    )
    for trouble in (Do.REJECT, Do.DROP_BEFORE, Do.DRAIN):
        peer.script = script([], then=trouble)
        stream = client.usage_stream(trouble.name, settings=settings)
        with pytest.raises(Stalled):
            async with asyncio.timeout(30), stream:
                await stream.send(event(0))
        assert len(stream.unacknowledged_events()) == 1


async def test_send_waits_when_nothing_is_acknowledged(peer: Peer, client: ZaazClient) -> None:
    peer.gate.clear()
    settings = UsageStreamSettings(max_buffered_events=60, linger_seconds=0.001)
    async with asyncio.timeout(30), client.usage_stream("w", settings=settings) as stream:
        sender = asyncio.create_task(stream.send_many(event(index) for index in range(300)))
        await peer.wait_received(peer.max_inflight_frames)
        async with client.usage_stream("another"):  # a round trip, for any frame too many
            assert peer.most_inflight_frames == peer.max_inflight_frames
        assert len(stream.unacknowledged_events()) == 60
        assert stream.counters.sent == 60
        assert not sender.done()
        with pytest.raises(BufferFull):
            stream.send_nowait(event(999))
        peer.gate.set()
        await sender
        await stream.flush()
    assert peer.writers["w"].keys == keys(300)


async def test_the_buffer_is_bounded_in_bytes_too(peer: Peer, client: ZaazClient) -> None:
    peer.gate.clear()
    size = event(0).ByteSize()
    settings = UsageStreamSettings(max_buffered_bytes=10 * size)
    async with asyncio.timeout(30), client.usage_stream("w", settings=settings) as stream:

        def fill() -> None:
            for index in range(20):
                stream.send_nowait(event(index))

        with pytest.raises(BufferFull):
            fill()
        taken = stream.counters.sent
        assert 8 <= taken <= 10
        peer.gate.set()
        await stream.flush()
        stream.send_nowait(event(taken))


async def test_a_cancelled_send_was_not_taken(peer: Peer, client: ZaazClient) -> None:
    peer.gate.clear()
    settings = UsageStreamSettings(max_buffered_events=1)
    async with asyncio.timeout(30), client.usage_stream("w", settings=settings) as stream:
        await stream.send(event(0))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await stream.send(event(1))
        peer.gate.set()
        await stream.send(event(2))
    assert peer.writers["w"].keys == ["key-0", "key-2"]


async def test_flush_waits_for_the_acknowledgement(peer: Peer, client: ZaazClient) -> None:
    peer.gate.clear()
    settings = UsageStreamSettings(linger_seconds=60)
    async with asyncio.timeout(30), client.usage_stream("w", settings=settings) as stream:
        await stream.flush()
        await stream.send(event(0))
        flushing = asyncio.create_task(stream.flush())
        await peer.wait_received(1)  # although it might have lingered for a minute
        assert not flushing.done()
        peer.gate.set()
        await flushing
        assert peer.writers["w"].keys == keys(1)
        assert stream.unacknowledged_events() == []


async def test_a_cancelled_flush_loses_nothing(peer: Peer, client: ZaazClient) -> None:
    peer.gate.clear()
    async with asyncio.timeout(30), client.usage_stream("w", settings=QUICK) as stream:
        await stream.send(event(0))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await stream.flush()
        peer.gate.set()
        await stream.flush()
    assert peer.writers["w"].keys == keys(1)


async def test_refused_events_come_back_and_the_rest_counts(peer: Peer, client: ZaazClient) -> None:
    error = status(grpc.StatusCode.FAILED_PRECONDITION, "PRICE_NOT_FOUND", ai_model="x/y")
    peer.refused = {"key-3": error, "key-17": error}
    told: list[RejectedEvent] = []

    def on_rejected(rejected: RejectedEvent) -> None:
        told.append(rejected)
        raise RuntimeError("a caller's mistake")

    async with client.usage_stream("w", on_rejected=on_rejected, settings=QUICK) as stream:
        await stream.send_many(event(index) for index in range(30))
    assert [rejected.offset for rejected in told] == [3, 17]
    assert list(stream.rejected_events) == told
    assert told[1].event == event(17)
    assert told[1].kept
    assert isinstance(told[1].error, PriceNotFound)
    assert told[1].error.metadata == {"ai_model": "x/y"}
    counters = stream.counters
    assert (counters.billed, counters.refused, counters.acknowledged) == (28, 2, 30)


@pytest.mark.parametrize("seed", range(6))
async def test_both_kinds_are_delivered_through_trouble(
    peer: Peer, client: ZaazClient, seed: int
) -> None:
    chance = random.Random(seed)
    troubles = [Do.DROP_BEFORE, Do.DROP_AFTER, Do.DRAIN, Do.END, Do.REJECT, Do.GAP]
    peer.max_frame_events = chance.randint(1, 12)
    peer.script = lambda _: chance.choice(troubles) if chance.random() < 0.4 else Do.ACK
    events = mixed(200)
    async with asyncio.timeout(30), client.usage_stream("w", settings=QUICK) as stream:
        assert await stream.send_many(events) == 200
        await stream.flush()
    assert peer.writers["w"].events == [e for e in events if e.DESCRIPTOR.name == "UsageEvent"]
    kept = peer.writers["w"].interactions
    assert kept == [e for e in events if e.DESCRIPTOR.name == "FeatureUsageEvent"]
    counters = stream.counters
    told = counters.billed + counters.logged + counters.unreported
    assert (counters.acknowledged, told) == (200, 200)


async def test_interactions_share_the_offsets_and_come_back_with_theirs(
    peer: Peer, client: ZaazClient
) -> None:
    peer.gate.clear()
    error = status(grpc.StatusCode.NOT_FOUND, "FEATURE_ENDPOINT_NOT_FOUND")
    peer.refused = {"key-1": error, "key-2": error}
    async with client.usage_stream("w", settings=QUICK) as stream:
        assert await stream.send_feature_usage(interaction(0)) == 0
        assert stream.send_feature_usage_nowait(interaction(1)) == 1
        assert await stream.send(event(2)) == 2
        assert stream.send_nowait(event(3)) == 3
        sent = [interaction(0), interaction(1), event(2), event(3)]
        assert stream.unacknowledged_events() == sent
        peer.gate.set()
    rejected = sorted(stream.rejected_events, key=lambda rejected: rejected.offset)
    assert [(r.offset, r.event) for r in rejected] == [(1, sent[1]), (2, sent[2])]
    assert (stream.counters.logged, stream.counters.billed, stream.counters.refused) == (1, 1, 2)


async def test_an_interaction_may_be_larger_than_a_usage_event(
    peer: Peer, client: ZaazClient
) -> None:
    large = interaction(0)
    large.response.string_value = "x" * 200_000
    async with client.usage_stream("w", settings=QUICK) as stream:
        await stream.send_feature_usage(large)
        large.response.string_value = "x" * 300_000
        with pytest.raises(MessageTooLarge):
            await stream.send_feature_usage(large)
    assert len(peer.writers["w"].interactions) == 1


def test_an_ack_that_does_not_say_what_became_of_events_is_counted() -> None:
    results = UsageResults(None)
    results.acknowledged(Frame(0, (b"",) * 10), UsageFrameAck(billed_events=3, duplicate_events=1))
    assert results.counters.unreported == 6
    assert results.counters.acknowledged == 10


async def test_a_persisted_writer_goes_on_where_it_stopped(peer: Peer, client: ZaazClient) -> None:
    await deliver(client, 40)
    async with client.usage_stream("w", settings=QUICK) as stream:
        assert stream.next_offset == 40
        await stream.send_many(event(index) for index in range(stream.next_offset, 70))
    assert peer.writers["w"].keys == keys(70)


@pytest.mark.parametrize("moved", [-5, 5])
async def test_a_server_that_stands_elsewhere_is_refused(
    peer: Peer, client: ZaazClient, moved: int
) -> None:
    async with asyncio.timeout(30):
        stream = client.usage_stream("w", settings=QUICK)
        await stream.__aenter__()
        await stream.send_many(event(index) for index in range(20))
        await stream.flush()
        peer.writers["w"].next_offset += moved
        peer.script = script([Do.DROP_BEFORE])
        await stream.send(event(20))
        with pytest.raises(OffsetOutOfRange, match="of this writer"):
            await stream.close()
        assert [e.usage_key for e in stream.unacknowledged_events()] == ["key-20"]


async def test_events_are_copied_when_sent(peer: Peer, client: ZaazClient) -> None:
    peer.gate.clear()
    async with client.usage_stream("w", settings=QUICK) as stream:
        sent = event(0)
        await stream.send(sent)
        sent.input_tokens = 99
        peer.gate.set()
    assert peer.writers["w"].events == [event(0)]


async def test_an_event_past_the_bound_is_refused_at_once(peer: Peer, client: ZaazClient) -> None:
    async with client.usage_stream("w", settings=QUICK) as stream:
        huge = event(0)
        huge.labels["note"] = "x" * 70_000
        with pytest.raises(MessageTooLarge):
            await stream.send(huge)
        await stream.send(event(0))
    assert peer.writers["w"].keys == keys(1)


async def test_frames_stay_below_the_message_bound(peer: Peer, client: ZaazClient) -> None:
    peer.max_frame_events = 1_000
    settings = UsageStreamSettings(max_buffered_bytes=64 * 1024 * 1024)
    async with asyncio.timeout(30), client.usage_stream("w", settings=settings) as stream:
        for index in range(120):
            large = event(index)
            large.labels["note"] = "x" * 50_000
            stream.send_nowait(large)
        await stream.flush()
    assert peer.writers["w"].keys == keys(120)
    assert peer.opens == 1


async def test_an_exception_in_the_body_still_delivers(peer: Peer, client: ZaazClient) -> None:
    async def body() -> None:
        async with client.usage_stream("w", settings=QUICK) as stream:
            await stream.send_many(event(index) for index in range(25))
            raise KeyError

    with pytest.raises(KeyError):
        await body()
    assert peer.writers["w"].keys == keys(25)


async def test_a_closed_stream_takes_nothing(peer: Peer, client: ZaazClient) -> None:
    async with client.usage_stream("w", settings=QUICK) as stream:
        await stream.send(event(0))
    with pytest.raises(StreamClosed):
        await stream.send(event(1))
    with pytest.raises(StreamClosed):
        await stream.__aenter__()
    await stream.close()


async def test_a_stream_that_is_not_open_takes_nothing(client: ZaazClient) -> None:
    stream = client.usage_stream("w")
    with pytest.raises(StreamClosed, match="async with"):
        await stream.send(event(0))
    with pytest.raises(StreamClosed, match="async with"):
        stream.send_nowait(event(0))


async def test_closing_the_client_ends_its_streams(peer: Peer) -> None:
    peer.gate.clear()
    async with ZaazClient(peer.target, KEY) as client:
        stream = client.usage_stream("w", settings=QUICK)
        await stream.__aenter__()
        await stream.send(event(0))
    with pytest.raises(StreamClosed):
        async with asyncio.timeout(10):
            await stream.flush()


async def test_opening_gives_up_in_time(unused_tcp_port_factory: Callable[[], int]) -> None:
    settings = UsageStreamSettings(open_timeout_seconds=0.3, min_backoff_seconds=0.01)
    async with ZaazClient(f"127.0.0.1:{unused_tcp_port_factory()}", KEY) as client:
        with pytest.raises(Unavailable, match="could not be opened"):
            await client.usage_stream("w", settings=settings).__aenter__()


async def test_opening_waits_for_a_server_that_comes_late(peer: Peer, client: ZaazClient) -> None:
    await peer.stop()
    opening = asyncio.create_task(deliver(client, 5))
    await asyncio.sleep(0)
    await peer.start()
    await opening
    assert peer.writers["w"].keys == keys(5)


async def test_many_tasks_share_a_stream(peer: Peer, client: ZaazClient) -> None:
    settings = UsageStreamSettings(max_buffered_events=20, linger_seconds=0.001)
    async with asyncio.timeout(30), client.usage_stream("w", settings=settings) as stream:

        async def sender(start: int) -> None:
            for index in range(start, 200, 10):
                await stream.send(event(index))

        await asyncio.gather(*map(sender, range(10)))
    assert sorted(peer.writers["w"].keys) == sorted(keys(200))


@pytest.mark.parametrize(
    "wrong", ["max_buffered_events", "open_timeout_seconds", "stall_timeout_seconds"]
)
def test_settings_that_cannot_work_are_named(wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        UsageStreamSettings(**{wrong: 0})
