"""One usage stream: frames in, answers out, in order.

    client --frames--> _receive --keep---> feature usage logs (interactions, if it has any)
                                --submit-> ledger (pipelined)
    client <--answers-- answers <--------- futures, in the order of the frames

A frame's interactions are durable before it is submitted. Whatever happens in between, the
client sends it again, and what is kept under a key is kept once.

Reading runs ahead of answering by at most MAX_INFLIGHT_FRAMES; then it stops,
and HTTP/2 slows the client down.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import NamedTuple

from bson import ObjectId
from google.protobuf.duration_pb2 import Duration
from zaaz.credits.v1 import usage_service_pb2 as pb

from server.credits.events import MAX_FRAME_EVENTS, EventReader, frame_size
from server.credits.feature_usage.service import FeatureUsageLogs, Kept
from server.credits.rejections import RejectionRoom
from server.kernel.errors import DomainError, Reason, field_invalid
from server.kernel.tasks import end
from server.ledger.frames import FramePosition, FrameResult, Refused, Settled
from server.ledger.model import Writer
from server.ledger.refusals import fenced
from server.ledger.service import Ledger
from server.rpc.errors import to_status

MAX_INFLIGHT_FRAMES = 16
THROTTLE_SECONDS = 0.25

ENDS_STREAM = frozenset({Reason.WRITER_FENCED, Reason.STREAM_ALREADY_OPEN})
"""Refusals after which the stream makes no sense; any other rejects one frame."""

_Answer = Callable[[], Awaitable[pb.IngestUsageResponse]]


class _Submitted(NamedTuple):
    """A frame on its way: where it began, how many events the ledger has, what became of others."""

    offset: int
    billable: int
    interactions: list[Kept]
    settling: asyncio.Future[FrameResult]

    @property
    def end(self) -> int:
        """The offset after the frame."""
        return self.offset + self.billable + len(self.interactions)


class UsageStream:
    """A stream of one writer, from `opened` to its end."""

    def __init__(
        self,
        client_id: str,
        writer: Writer,
        ledger: Ledger,
        events: EventReader,
        logs: FeatureUsageLogs,
        room: RejectionRoom,
    ) -> None:
        self._client_id = client_id
        self._writer = writer
        self._ledger = ledger
        self._events = events
        self._logs = logs
        self._room = room
        self._answers: deque[_Answer] = deque()
        self._changed = asyncio.Event()
        self._window = asyncio.Semaphore(MAX_INFLIGHT_FRAMES)
        self._next_offset = writer.next_offset
        self._is_fenced = False
        self._is_draining = False

    @property
    def epoch(self) -> int:
        """Which opening of its writer it is: the highest one has it."""
        return self._writer.epoch

    def fence(self) -> None:
        """Ends the stream with WRITER_FENCED: another one has its writer."""
        self._is_fenced = True
        self._changed.set()

    def drain(self) -> None:
        """Lets the stream end once what was read is answered."""
        self._is_draining = True
        self._changed.set()

    async def answers(
        self, requests: AsyncIterator[pb.IngestUsageRequest]
    ) -> AsyncIterator[pb.IngestUsageResponse]:
        """Every answer, the first being `opened`. WRITER_FENCED, STREAM_ALREADY_OPEN."""
        yield pb.IngestUsageResponse(
            opened=pb.UsageStreamOpened(
                next_offset=self._writer.next_offset,
                max_inflight_frames=MAX_INFLIGHT_FRAMES,
                max_frame_events=MAX_FRAME_EVENTS,
                client_id=self._client_id,
            )
        )
        receiving = asyncio.create_task(self._receive(requests))
        receiving.add_done_callback(lambda _: self._changed.set())
        try:
            while True:
                if self._is_fenced:
                    raise fenced(self._writer.key)
                if self._answers:
                    yield await self._answers.popleft()()
                    self._window.release()
                elif self._is_draining or receiving.done():
                    break
                else:
                    self._changed.clear()
                    await self._changed.wait()
            if receiving.done():
                receiving.result()
            if self._is_draining:
                yield pb.IngestUsageResponse(
                    drain=pb.UsageStreamDrain(next_offset=self._next_offset)
                )
        finally:
            await end(receiving)

    async def _receive(self, requests: AsyncIterator[pb.IngestUsageRequest]) -> None:
        async for request in requests:
            kind = request.WhichOneof("request")
            if kind == "open":
                raise DomainError(Reason.STREAM_ALREADY_OPEN, "`open` was sent twice")
            if kind is None:
                raise field_invalid("request", "must be `open` or `frame`")
            await self._window.acquire()
            if self._is_draining:
                return
            self._put(await self._take(request.frame))

    def _put(self, answer: _Answer) -> None:
        self._answers.append(answer)
        self._changed.set()

    async def _take(self, frame: pb.UsageFrame) -> _Answer:
        """Submits the frame; what comes of it is awaited when its turn has come."""
        offset = frame.offset
        try:
            if offset < 0:
                # Frames are not checked by the edge, and this one would be taken for a replay.
                raise field_invalid("frame.offset", "must not be negative")
            submitted = await self._submit(frame)
        except DomainError as error:
            # Bound to a name of its own: Python forgets `error` at the end of the block.
            refusal = error
            return lambda: self._refuse(offset, refusal)
        # A stream that ends before this frame's turn asks nobody what came of it.
        submitted.settling.add_done_callback(_notice)
        return lambda: self._settle(submitted)

    async def _submit(self, frame: pb.UsageFrame) -> _Submitted:
        keep = await self._room.is_left(self._client_id)
        items = await self._events.items(self._client_id, frame, keep=keep)
        interactions = await self._logs.keep(self._client_id, frame)
        await self._make_room(frame_size(frame))
        position = FramePosition(self._writer.key, self._writer.epoch, frame.offset)
        settling = self._ledger.settle(items, position, unbilled=len(interactions))
        return _Submitted(frame.offset, len(items), interactions, settling)

    async def _make_room(self, size: int) -> None:
        """Waits while the ledger is behind, and tells the client so."""
        if not self._ledger.has_room(size):
            # Answers no frame, so it takes a place in the window of its own.
            await self._window.acquire()
            self._put(_throttle)
            await self._ledger.wait_for_room(size)

    async def _settle(self, submitted: _Submitted) -> pb.IngestUsageResponse:
        try:
            result = await submitted.settling
        except DomainError as error:
            return await self._refuse(submitted.offset, error)
        self._room.note(self._client_id, result)
        self._next_offset = max(self._next_offset, submitted.end)
        return pb.IngestUsageResponse(ack=_ack(submitted, result))

    async def _refuse(self, offset: int, error: DomainError) -> pb.IngestUsageResponse:
        if error.reason in ENDS_STREAM:
            raise error
        return pb.IngestUsageResponse(
            rejected=pb.UsageFrameRejected(
                offset=offset, error=to_status(error), next_offset=self._next_offset
            )
        )


def _notice(settling: asyncio.Future[FrameResult]) -> None:
    if not settling.cancelled():
        settling.exception()


async def _throttle() -> pb.IngestUsageResponse:
    delay = Duration()
    delay.FromMilliseconds(round(THROTTLE_SECONDS * 1_000))
    return pb.IngestUsageResponse(throttle=pb.UsageStreamThrottle(retry_delay=delay))


def _ack(submitted: _Submitted, result: FrameResult) -> pb.UsageFrameAck:
    billed = duplicates = 0
    errors = []
    for place, outcome in enumerate(result.outcomes, start=result.skipped):
        if isinstance(outcome, Settled):
            if outcome.duplicate:
                duplicates += 1
            else:
                billed += 1
        else:
            errors.append(event_error(place, outcome))
    errors += _interaction_errors(submitted)
    return pb.UsageFrameAck(
        through_offset=submitted.end,
        errors=errors,
        billed_events=billed,
        duplicate_events=duplicates + min(result.skipped, submitted.billable),
        logged_events=sum(isinstance(kept, ObjectId) for kept in submitted.interactions),
    )


def _interaction_errors(submitted: _Submitted) -> Iterator[pb.UsageEventError]:
    """Those of a frame that was settled before, too: they are listed nowhere else."""
    for place, kept in enumerate(submitted.interactions, start=submitted.billable):
        if isinstance(kept, DomainError):
            yield event_error(place, Refused(kept, kept=False))


def event_error(index: int, refused: Refused) -> pb.UsageEventError:
    """A refused event, with the status that a call of its own would have."""
    return pb.UsageEventError(index=index, error=to_status(refused.error), kept=refused.kept)
