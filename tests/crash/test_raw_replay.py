"""A client without the SDK that sends again far more than it has to, while everything dies.

It speaks the stream's messages itself: it resends frames that were acknowledged,
cut elsewhere, so that they straddle the writer's offset. An acknowledgement is a
promise: whatever it covers is there when the stream is opened again.
"""

import asyncio
import random
from collections.abc import AsyncIterator

import grpc
from zaaz.credits.v1 import usage_service_pb2 as pb

from tests.crash.books import assert_billed_exactly_once, fund, next_offset
from tests.crash.killer import Killer, Victim
from tests.crash.trace import make_workload
from tests.run.command import Command
from tests.serving import Served, connected, error_info, new_key

EVENTS = 4_000
USERS = 20
FRAME_EVENTS = (50, 200)
WINDOW_FRAMES = 8
MAX_REPLAYED_EVENTS = 1_000
PACE_SECONDS = 0.02
SESSION_SECONDS = 30.0
RETRY_SECONDS = 0.1
DELIVERY_SECONDS = 120.0
RETRYABLE_CODES = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
BROKEN_WRITE = "Internal error from Core"
"""What grpc.aio makes of a request that was being written when the connection broke."""
RETRYABLE_REASONS = frozenset({"DEPENDENCY_UNAVAILABLE", "CONTENTION", "OFFSET_OUT_OF_RANGE"})


class RawWriter:
    """Sends `events` under one writer, in as many sessions as it takes."""

    def __init__(
        self, served: Served, events: tuple[pb.UsageEvent, ...], rng: random.Random
    ) -> None:
        self.writer_id = new_key()
        self.acknowledged = 0
        self.billed = 0
        self.duplicates = 0
        self._served = served
        self._events = events
        self._rng = rng

    async def run(self) -> None:
        """Returns when all is acknowledged."""
        while self.acknowledged < len(self._events):
            try:
                await self._session()
            except grpc.aio.AioRpcError as error:
                if error.code() not in RETRYABLE_CODES and error.details() != BROKEN_WRITE:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    async def _session(self) -> None:
        window = asyncio.Semaphore(WINDOW_FRAMES)
        start = asyncio.get_running_loop().create_future()
        call = self._served.usage.IngestUsage(
            self._requests(start, window), timeout=SESSION_SECONDS
        )
        try:
            async for answer in call:
                kind = answer.WhichOneof("response")
                if kind == "opened":
                    start.set_result(self._start(answer.opened.next_offset))
                elif kind == "ack":
                    self._take(answer.ack)
                    window.release()
                elif kind == "rejected":
                    # Start over from where the server stands.
                    assert error_info(answer.rejected.error).reason in RETRYABLE_REASONS
                    return
        finally:
            call.cancel()

    def _start(self, next_offset: int) -> int:
        """Somewhere before what the server has, which is at least all that it acknowledged."""
        assert self.acknowledged <= next_offset <= len(self._events)
        return max(0, next_offset - self._rng.randint(0, MAX_REPLAYED_EVENTS))

    async def _requests(
        self, start: asyncio.Future[int], window: asyncio.Semaphore
    ) -> AsyncIterator[pb.IngestUsageRequest]:
        yield pb.IngestUsageRequest(open=pb.OpenUsageStream(writer_id=self.writer_id))
        offset = await start
        while offset < len(self._events):
            await window.acquire()
            events = self._events[offset : offset + self._rng.randint(*FRAME_EVENTS)]
            yield pb.IngestUsageRequest(frame=pb.UsageFrame(offset=offset, events=events))
            offset += len(events)
            await asyncio.sleep(PACE_SECONDS)

    def _take(self, ack: pb.UsageFrameAck) -> None:
        assert not ack.errors
        self.acknowledged = max(self.acknowledged, ack.through_offset)
        self.billed += ack.billed_events
        self.duplicates += ack.duplicate_events


async def test_replayed_frames_bill_nothing_twice(
    server: Command, rng: random.Random, rounds: int
) -> None:
    workload = make_workload(EVENTS, USERS, rng)
    async with connected(server.ready["grpc"], server.ready["api_key"]) as served:
        funds = await fund(served, workload)
        writer = RawWriter(served, workload.events, rng)
        killer = Killer(server, rng, rng.sample(list(Victim), len(Victim)))
        async with asyncio.timeout(DELIVERY_SECONDS + 20 * rounds), asyncio.TaskGroup() as tasks:
            tasks.create_task(killer.run(lambda: writer.acknowledged, EVENTS, rounds))
            tasks.create_task(writer.run())

        assert killer.struck == rounds
        # Of what was billed some answers were lost, but none was counted twice.
        assert 0 < writer.billed <= EVENTS
        await assert_billed_exactly_once(served, workload, funds)
        assert await next_offset(served, writer.writer_id) == EVENTS


async def test_usage_keys_hold_where_offsets_do_not(
    server: Command, rng: random.Random, rounds: int
) -> None:
    """Two writers of one client send the same events at once: the keys are the backstop."""
    events = EVENTS // 2
    workload = make_workload(events, USERS, rng)
    async with connected(server.ready["grpc"], server.ready["api_key"]) as served:
        funds = await fund(served, workload)
        writers = [RawWriter(served, workload.events, rng) for _ in range(2)]
        killer = Killer(server, rng, rng.sample(list(Victim), len(Victim)))
        async with asyncio.timeout(DELIVERY_SECONDS + 20 * rounds), asyncio.TaskGroup() as tasks:
            slowest = lambda: min(writer.acknowledged for writer in writers)  # noqa: E731
            tasks.create_task(killer.run(slowest, events, rounds))
            for writer in writers:
                tasks.create_task(writer.run())

        assert sum(writer.billed for writer in writers) <= events
        await assert_billed_exactly_once(served, workload, funds)
        for writer in writers:
            assert await next_offset(served, writer.writer_id) == events
