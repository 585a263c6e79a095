"""A scripted peer of the usage stream: a real grpc.aio server that misbehaves on request.

It keeps the contract (one writer, one stream; frames answered in order; a
replayed or straddling frame trimmed; a gap refused) and what it was sent, so
that a test can assert exactly-once. `script` is asked before each frame is
handled and says what to do about it.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from zaaz.credits.v1 import usage_service_pb2 as pb
from zaaz.credits.v1.feature_usage_log_pb2 import FEATURE_USAGE_STATUS_SUCCESS, FeatureUsageEvent
from zaaz.credits.v1.usage_service_pb2_grpc import (
    UsageServiceServicer,
    add_UsageServiceServicer_to_server,
)

Stream = grpc.aio.ServicerContext[pb.IngestUsageRequest, pb.IngestUsageResponse]
KEY = "zaaz_65f000000000000000000000_secret"


class Do(Enum):
    """What becomes of a frame."""

    ACK = auto()
    DROP_BEFORE = auto()  # the connection breaks, the frame is lost
    DROP_AFTER = auto()  # the frame is durable, its ack is lost
    SILENT = auto()  # the frame is lost and nobody says so
    DRAIN = auto()
    THROTTLE = auto()  # then ack
    REJECT = auto()  # CONTENTION
    GAP = auto()  # OFFSET_OUT_OF_RANGE although there is none
    END = auto()  # the stream ends with OK
    WRONG_ACK = auto()  # an ack for less than the frame
    INTERNAL = auto()
    FENCE = auto()
    REVOKE = auto()
    BROKEN = auto()  # a rejection with INTERNAL
    SIZE = auto()  # a rejection that repeating cannot help


@dataclass
class Writer:
    """What the peer has of one writer."""

    next_offset: int = 0
    events: list[pb.UsageEvent] = field(default_factory=list)
    interactions: list[FeatureUsageEvent] = field(default_factory=list)
    generation: int = 0

    @property
    def keys(self) -> list[str]:
        return [event.usage_key for event in self.events]


@dataclass
class Inbox:
    """Frames of one stream that were received."""

    frames: asyncio.Queue[pb.UsageFrame | None] = field(default_factory=asyncio.Queue)
    unanswered: int = 0


Script = Callable[[int], Do]


def status(
    code: grpc.StatusCode, reason: str, *, retry_seconds: int | None = None, **metadata: str
) -> status_pb2.Status:
    """As servers send it; `retry_seconds` is what they ask to wait."""
    made = status_pb2.Status(code=code.value[0], message=f"scripted {reason}")
    info = error_details_pb2.ErrorInfo(reason=reason, domain="zaaz", metadata=metadata)
    made.details.add().Pack(info)
    if retry_seconds is not None:
        delay = Duration(seconds=retry_seconds)
        made.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return made


_ENDS: dict[Do, status_pb2.Status] = {
    Do.INTERNAL: status(grpc.StatusCode.INTERNAL, "INTERNAL", error_id="1"),
    Do.FENCE: status(grpc.StatusCode.ABORTED, "WRITER_FENCED", writer_id="w"),
    Do.REVOKE: status(grpc.StatusCode.UNAUTHENTICATED, "API_KEY_REVOKED"),
}
_REJECTIONS: dict[Do, status_pb2.Status] = {
    Do.REJECT: status(grpc.StatusCode.ABORTED, "CONTENTION", attempts="3"),
    Do.GAP: status(grpc.StatusCode.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE"),
    Do.BROKEN: status(grpc.StatusCode.INTERNAL, "INTERNAL", error_id="2"),
    Do.SIZE: status(grpc.StatusCode.INVALID_ARGUMENT, "FRAME_SIZE_INVALID"),
}


class Peer(UsageServiceServicer):
    """`frames` counts the frames that were received, over all streams."""

    def __init__(self) -> None:
        self.writers: dict[str, Writer] = defaultdict(Writer)
        self.script: Script = lambda _: Do.ACK
        self.max_inflight_frames = 4
        self.max_frame_events = 10
        self.client_id = ""
        """Whom keys are of; it says nothing of that, as an older server, while this is empty."""
        self.frames = 0
        self.opens = 0
        self.open_delay_seconds = 0.0
        self.throttle_seconds = 0.01
        self.refused: dict[str, status_pb2.Status] = {}
        self.ends = dict(_ENDS)
        """With what a stream ends, by what is done to it."""
        self.rejections = dict(_REJECTIONS)
        """With what a frame is rejected."""
        self.metadata: list[dict[str, Any]] = []
        self.gate = asyncio.Event()
        """Frames are handled while it is set."""
        self.gate.set()
        self.received = asyncio.Condition()
        self.received_frames = 0
        self.most_inflight_frames = 0
        """The most frames that were unanswered at a time."""
        self.services: list[Callable[[grpc.aio.Server], None]] = []
        """What else its server offers."""
        self.credentials: grpc.ServerCredentials | None = None
        """Plaintext without."""
        self._server: grpc.aio.Server | None = None
        self.port = 0

    @property
    def api_key(self) -> str:
        return KEY

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_UsageServiceServicer_to_server(self, server)
        for add in self.services:
            add(server)
        if self.credentials is None:
            self.port = server.add_insecure_port(self.target)
        else:
            self.port = server.add_secure_port(self.target, self.credentials)
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """As kill -9: open streams break."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(None)

    async def wait_received(self, frames: int) -> None:
        """Until so many frames have arrived, handled or not."""
        async with self.received, asyncio.timeout(10):
            await self.received.wait_for(lambda: self.received_frames >= frames)

    async def IngestUsage(  # type: ignore[override]  # noqa: N802
        self, request_iterator: Any, context: Stream
    ) -> None:
        self.metadata.append({str(k): v for k, v in context.invocation_metadata() or ()})
        first = await context.read()
        writer = await self._open(first, context)
        generation = writer.generation
        inbox = Inbox()
        reader = asyncio.create_task(self._read(context, inbox))
        try:
            while (frame := await inbox.frames.get()) is not None:
                await self.gate.wait()
                if writer.generation != generation:
                    await self._abort(context, self.ends[Do.FENCE])
                self.frames += 1
                if await self._handle(writer, frame, context):
                    return
                inbox.unanswered -= 1
        finally:
            reader.cancel()
            await asyncio.wait({reader})

    async def _open(self, first: pb.IngestUsageRequest, context: Stream) -> Writer:
        self.opens += 1
        await asyncio.sleep(self.open_delay_seconds)
        writer = self.writers[first.open.writer_id]
        writer.generation += 1
        opened = pb.UsageStreamOpened(
            next_offset=writer.next_offset,
            max_inflight_frames=self.max_inflight_frames,
            max_frame_events=self.max_frame_events,
            client_id=self.client_id,
        )
        await context.write(pb.IngestUsageResponse(opened=opened))
        return writer

    async def _read(self, context: Stream, inbox: Inbox) -> None:
        async for request in iter_requests(context):
            inbox.frames.put_nowait(request.frame)
            inbox.unanswered += 1
            self.most_inflight_frames = max(self.most_inflight_frames, inbox.unanswered)
            async with self.received:
                self.received_frames += 1
                self.received.notify_all()
        inbox.frames.put_nowait(None)

    async def _handle(self, writer: Writer, frame: pb.UsageFrame, context: Stream) -> bool:
        """Whether the stream is over."""
        do = self.script(self.frames)
        match do:
            case Do.ACK | Do.WRONG_ACK:
                await self._answer(writer, frame, context, wrong=do is Do.WRONG_ACK)
            case Do.THROTTLE:
                delay = Duration()
                delay.FromNanoseconds(int(self.throttle_seconds * 1e9))
                throttle = pb.UsageStreamThrottle(retry_delay=delay)
                await context.write(pb.IngestUsageResponse(throttle=throttle))
                await self._answer(writer, frame, context)
            case Do.SILENT:
                pass
            case Do.REJECT | Do.GAP | Do.SIZE | Do.BROKEN:
                await self._reject(writer, frame, context, self.rejections[do])
            case Do.DRAIN:
                drain = pb.UsageStreamDrain(next_offset=writer.next_offset)
                await context.write(pb.IngestUsageResponse(drain=drain))
                await asyncio.Event().wait()  # the client is the one to leave
            case Do.END:
                return True
            case Do.DROP_BEFORE:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "scripted drop")
            case Do.DROP_AFTER:
                self._take(writer, frame)
                await context.abort(grpc.StatusCode.UNAVAILABLE, "scripted drop")
            case _:
                await self._abort(context, self.ends[do])
        return False

    async def _answer(
        self, writer: Writer, frame: pb.UsageFrame, context: Stream, *, wrong: bool = False
    ) -> None:
        assert 1 <= _size(frame) <= self.max_frame_events
        if frame.offset > writer.next_offset:
            await self._reject(writer, frame, context, self.rejections[Do.GAP])
            return
        ack = self._take(writer, frame)
        ack.through_offset -= int(wrong)
        await context.write(pb.IngestUsageResponse(ack=ack))

    def _take(self, writer: Writer, frame: pb.UsageFrame) -> pb.UsageFrameAck:
        if frame.offset > writer.next_offset:
            return pb.UsageFrameAck()
        ack = pb.UsageFrameAck(through_offset=frame.offset + _size(frame))
        fresh = writer.next_offset - frame.offset
        sent: list[pb.UsageEvent | FeatureUsageEvent] = [*frame.events, *frame.feature_events]
        for index, event in enumerate(sent):
            if index < fresh:
                continue
            is_refused = event.usage_key in self.refused
            if isinstance(event, pb.UsageEvent):
                writer.events.append(event)
                ack.billed_events += not is_refused
            else:
                writer.interactions.append(event)
                ack.logged_events += not is_refused
            if is_refused:
                ack.errors.add(index=index, error=self.refused[event.usage_key], kept=True)
        writer.next_offset = max(writer.next_offset, ack.through_offset)
        return ack

    async def _reject(
        self, writer: Writer, frame: pb.UsageFrame, context: Stream, error: status_pb2.Status
    ) -> None:
        rejected = pb.UsageFrameRejected(
            offset=frame.offset, error=error, next_offset=writer.next_offset
        )
        await context.write(pb.IngestUsageResponse(rejected=rejected))

    async def _abort(self, context: Stream, error: status_pb2.Status) -> None:
        await context.abort_with_status(rpc_status.to_status(error))


async def iter_requests(context: Stream) -> AsyncIterator[pb.IngestUsageRequest]:
    """What the client sends, until it has no more."""
    while True:
        request: Any = await context.read()
        if request is grpc.aio.EOF:
            return
        yield request


def _size(frame: pb.UsageFrame) -> int:
    return len(frame.events) + len(frame.feature_events)


def script(answers: Iterable[Do], then: Do = Do.ACK) -> Script:
    """One answer a frame, and `then` for all that follow."""
    remaining = iter(answers)
    return lambda _: next(remaining, then)


def event(index: int) -> pb.UsageEvent:
    made = pb.UsageEvent(
        usage_key=f"key-{index}",
        user_id="65f0000000000000000000aa",
        ai_model="openai/gpt-4o-mini",
        input_tokens=index,
        output_tokens=7,
    )
    made.occurred_time.FromMilliseconds(1_800_000_000_000 + index)
    return made


def interaction(index: int) -> FeatureUsageEvent:
    made = FeatureUsageEvent(
        usage_key=f"key-{index}",
        user_id="65f0000000000000000000aa",
        feature_endpoint="chat.send",
        code=200,
        status=FEATURE_USAGE_STATUS_SUCCESS,
    )
    made.payload.string_value = "x" * (index % 700)
    made.occurred_time.FromMilliseconds(1_800_000_000_000 + index)
    return made


def mixed(count: int) -> list[pb.UsageEvent | FeatureUsageEvent]:
    """Events of both kinds, in runs and by turns."""
    return [
        interaction(index) if index % 3 == 1 or index % 20 > 14 else event(index)
        for index in range(count)
    ]


def keys(count: int, start: int = 0) -> list[str]:
    return [f"key-{index}" for index in range(start, count)]
