"""The queue's bookkeeping, by any sequence of what can happen to it."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from zaaz.credits.v1.usage_service_pb2 import IngestUsageRequest
from zaaz_client.usage_queue import MAX_FRAME_BYTES, UsageQueue
from zaaz_client.wire import (
    StreamEvent,
    decode_event,
    encode_event,
    encode_frame,
    encode_open,
    is_feature_event,
)

from .peer import event, interaction

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 9)),
        st.tuples(st.just("cut"), st.integers(1, 5)),
        st.tuples(st.just("ack"), st.just(0)),
        st.tuples(st.just("rewind"), st.just(0)),
        st.tuples(st.just("resume"), st.integers(0, 30)),
    ),
    max_size=60,
)


class Twin:
    """A queue beside the plainest account of what it should hold."""

    def __init__(self, start: int) -> None:
        self.queue = UsageQueue(10_000, 10_000_000)
        self.queue.start(start)
        self.sent: list[bytes] = []
        self.start = start

    def put(self, count: int) -> None:
        for _ in range(count):
            chunk = encode_event(event(len(self.sent)))
            assert self.queue.put_nowait(chunk) == self.start + len(self.sent)
            self.sent.append(chunk)

    def cut(self, size: int) -> None:
        self.queue.frame_events = size
        if self.queue.pending_events:
            expected = self.queue.cursor
            frame = self.queue.cut()
            assert frame.offset == expected
            assert 1 <= len(frame.chunks) <= size
            begin = frame.offset - self.start
            assert list(frame.chunks) == self.sent[begin : begin + len(frame.chunks)]

    def ack(self, _: int) -> None:
        if self.queue.unanswered:
            end = self.queue.unanswered[0].end
            self.queue.acknowledge()
            assert self.queue.acknowledged == end

    def rewind(self, _: int) -> None:
        self.queue.rewind()
        assert self.queue.cursor == self.queue.acknowledged

    def resume(self, ahead: int) -> None:
        before = self.queue.acknowledged
        target = min(before + ahead, self.queue.sent_through)
        assert self.queue.resume(target) == target - before

    def check(self) -> None:
        queue = self.queue
        assert queue.chunks() == self.sent[queue.acknowledged - self.start :]
        assert queue.next_offset == self.start + len(self.sent)
        assert queue.unacknowledged == len(queue.chunks())
        assert queue.acknowledged <= queue.sent_through <= queue.next_offset
        assert queue._bytes == sum(map(len, queue.chunks()))


@given(start=st.sampled_from([0, 1, 10**12]), actions=steps)
def test_nothing_is_lost_moved_or_counted_twice(start: int, actions: list[tuple[str, int]]) -> None:
    twin = Twin(start)
    for name, argument in actions:
        getattr(twin, name)(argument)
        twin.check()


@given(st.integers(0, 2**40), st.lists(st.integers(0, 60_000), min_size=1, max_size=20))
def test_frames_are_what_the_contract_reads(offset: int, sizes: list[int]) -> None:
    events = []
    for size in sizes:
        made = event(size)
        made.labels["note"] = "x" * size
        events.append(made)
    chunks = [encode_event(made) for made in events]
    request = IngestUsageRequest.FromString(encode_frame(offset, chunks))
    assert request.frame.offset == offset
    assert list(request.frame.events) == events
    assert [decode_event(chunk) for chunk in chunks] == events


@given(st.lists(st.sampled_from([event, interaction]), min_size=1, max_size=30))
def test_each_kind_keeps_its_order_and_its_places_in_a_frame(
    kinds: list[Callable[[int], StreamEvent]],
) -> None:
    events = [make(index) for index, make in enumerate(kinds)]
    queue = UsageQueue(1_000, 10_000_000)
    queue.start(7)
    for made in events:
        queue.put_nowait(encode_event(made))
    frame = queue.cut()
    assert [decode_event(chunk) for chunk in frame.chunks] == events
    read = IngestUsageRequest.FromString(encode_frame(frame.offset, frame.chunks)).frame
    counted = [*read.events, *read.feature_events]
    assert [events[frame.place(index)] for index in range(len(counted))] == counted
    assert [is_feature_event(chunk) for chunk in frame.chunks] == [
        made.DESCRIPTOR.name == "FeatureUsageEvent" for made in events
    ]


def test_open_is_what_the_contract_reads() -> None:
    assert IngestUsageRequest.FromString(encode_open("w-1")).open.writer_id == "w-1"


def test_a_frame_ends_before_its_bound_in_bytes() -> None:
    queue = UsageQueue(1_000, 100_000_000)
    queue.start(0)
    queue.frame_events = 1_000
    for index in range(100):
        large = event(index)
        large.labels["note"] = "x" * 40_000
        queue.put_nowait(encode_event(large))
    while queue.pending_events:
        assert sum(map(len, queue.cut().chunks)) <= MAX_FRAME_BYTES
