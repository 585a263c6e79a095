"""Usage events through the stream, as a partner's spool sends them."""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any
from uuid import uuid4

import grpc
from bson import ObjectId
from zaaz.credits.v1 import usage_service_pb2 as pb
from zaaz.credits.v1.usage_service_pb2_grpc import UsageServiceStub

from bench.pairs import Run
from bench.processes import BenchError, Served
from bench.setting import Size
from bench.trace import token_counts
from server.app import LOCAL_CLIENT
from server.kernel.ids import derived_id

MODEL = "openai/gpt-4o-mini"
USAGE_EVENTS = Size(30_000, 60_000)
FRAME_EVENTS = 1_000
RUNS_AHEAD = 2
"""Runs that the baseline is behind the stream at most. It is one behind before a pair."""

Document = dict[str, Any]
Heard = Callable[[int], None]
"""Is told how many events have been billed, at every ack."""


class Stream:
    """Ours: one writer, frames of 1,000 events built beforehand, the window as the server says."""

    def __init__(self, channel: grpc.aio.Channel, served: Served, users: Sequence[str]) -> None:
        self._stub: Any = UsageServiceStub(channel)
        self._metadata = served.metadata
        self._users = users
        self._tokens = token_counts()
        self._random = random.Random(len(users))
        self.sent: deque[list[ObjectId]] = deque(maxlen=RUNS_AHEAD)
        """The entries of the last runs, each in the order of its events, oldest first."""

    async def prepare(self, operations: int) -> Run:
        """Builds the run's frames."""
        run = uuid4().hex
        events = list(self._events(run, operations))
        self.sent.append([derived_id(LOCAL_CLIENT, e.user_id, e.usage_key) for e in events])
        frames = list(_frames(events))
        return lambda: self._stream(run, frames, operations)

    async def flow(self, operations: int, heard: Heard) -> None:
        """One stream of so many events, which are built on the way: rates are not to be read."""
        run = uuid4().hex
        await self._stream(run, _frames(self._events(run, operations)), operations, heard)

    async def visit(self) -> None:
        """An event for each wallet: the server is to know them all before it is measured."""
        run = uuid4().hex
        await self._stream(run, _frames(self._of(run, self._users)), len(self._users))

    def _events(self, run: str, operations: int) -> Iterator[pb.UsageEvent]:
        return self._of(run, (self._random.choice(self._users) for _ in range(operations)))

    def _of(self, run: str, users: Iterable[str]) -> Iterator[pb.UsageEvent]:
        for place, user_id in enumerate(users):
            yield self._event(f"{run}-{place}", user_id, time.time_ns() // 1_000_000)

    def _event(self, usage_key: str, user_id: str, now_ms: int) -> pb.UsageEvent:
        tokens_in, tokens_out = next(self._tokens)
        event = pb.UsageEvent(
            usage_key=usage_key,
            user_id=user_id,
            ai_model=MODEL,
            input_tokens=tokens_in,
            output_tokens=tokens_out,
        )
        event.occurred_time.FromMilliseconds(now_ms)
        return event

    async def _stream(
        self,
        writer_id: str,
        frames: Iterable[pb.IngestUsageRequest],
        operations: int,
        heard: Heard = lambda _: None,
    ) -> list[float]:
        window = asyncio.Semaphore(0)
        sent_at: list[float] = []

        async def requests() -> AsyncIterator[pb.IngestUsageRequest]:
            yield pb.IngestUsageRequest(open=pb.OpenUsageStream(writer_id=writer_id))
            for frame in frames:
                await window.acquire()
                sent_at.append(time.perf_counter())
                yield frame

        latencies: list[float] = []
        billed = 0
        async for answer in self._stub.IngestUsage(requests(), metadata=self._metadata):
            match answer.WhichOneof("response"):
                case "opened":
                    for _ in range(answer.opened.max_inflight_frames):
                        window.release()
                case "ack":
                    latencies.append(time.perf_counter() - sent_at[len(latencies)])
                    billed += answer.ack.billed_events
                    heard(billed)
                    window.release()
                case "throttle":
                    pass  # The window slows us already.
                case other:
                    raise BenchError(f"the server answered {other}: {answer}")
        if billed != operations:
            raise BenchError(f"{operations} events were sent and {billed} billed")
        return latencies


def _frames(events: Iterable[pb.UsageEvent]) -> Iterator[pb.IngestUsageRequest]:
    offset, waiting = 0, iter(events)
    while some := list(islice(waiting, FRAME_EVENTS)):
        yield pb.IngestUsageRequest(frame=pb.UsageFrame(offset=offset, events=some))
        offset += len(some)
