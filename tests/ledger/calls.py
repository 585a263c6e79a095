"""What tests of the contract say over and over: a refusal expected, a stream driven by hand."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2
from zaaz.credits.v1 import usage_service_pb2 as usage_pb
from zaaz.credits.v1.usage_service_pb2_grpc import UsageServiceStub

from tests.serving import Served, error_info, reason_of

ANSWER_SECONDS = 20.0
"""Long enough for any machine; a test that waits so long has failed."""

PRICE = 540_000
"""What `usage_event` costs, in micro-credits."""


class Refusal:
    """A refusal that was expected, once its block has been left."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}
        self.code: grpc.StatusCode | None = None
        self.message = ""


@contextmanager
def refused(reason: str) -> Iterator[Refusal]:
    """The block's call is refused for this reason."""
    refusal = Refusal()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield refusal
    error = caught.value
    assert reason_of(error) == reason, error.details()
    refusal.code, refusal.message = error.code(), error.details() or ""
    refusal.metadata = _metadata(error)


def _metadata(error: grpc.aio.AioRpcError) -> dict[str, str]:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return dict(error_info(status_pb2.Status.FromString(value)).metadata)
    return {}


def reasons(results: Sequence[Any]) -> list[str]:
    """The reason of each result of a batch; "" for one that worked."""
    return [_status_reason(result) for result in results]


def _status_reason(result: Any) -> str:
    if not result.HasField("error"):
        return ""
    error = result.error
    return str(error_info(getattr(error, "error", error)).reason)


async def soon(awaitable: Any) -> Any:
    """Its result, within the bound of every wait of these tests."""
    return await asyncio.wait_for(awaitable, ANSWER_SECONDS)


class Ingest:
    """An IngestUsage stream, message by message, on a connection of its own."""

    living: ClassVar[list["Ingest"]] = []

    def __init__(self, served: Served) -> None:
        self._requests: asyncio.Queue[usage_pb.IngestUsageRequest | None] = asyncio.Queue()
        self._channel = grpc.aio.insecure_channel(served.target)
        stub: Any = UsageServiceStub(self._channel)
        credentials = (("authorization", f"Bearer {served.api_key}"),)
        self._call = stub.IngestUsage(self._sent(), metadata=credentials)
        self.living.append(self)

    @classmethod
    async def opened(cls, served: Served, writer_id: str) -> tuple["Ingest", Any]:
        """The stream, and what `open` was answered with."""
        stream = cls(served)
        stream.open(writer_id)
        return stream, (await stream.answer("opened"))

    def open(self, writer_id: str) -> None:
        opening = usage_pb.OpenUsageStream(writer_id=writer_id)
        self.send(usage_pb.IngestUsageRequest(open=opening))

    def frame(self, offset: int, *events: usage_pb.UsageEvent) -> None:
        frame = usage_pb.UsageFrame(offset=offset, events=events)
        self.send(usage_pb.IngestUsageRequest(frame=frame))

    def send(self, message: usage_pb.IngestUsageRequest) -> None:
        """Sent in its turn; lost if the stream has ended by then."""
        self._requests.put_nowait(message)

    def end(self) -> None:
        """Nothing more comes from this side."""
        self._requests.put_nowait(None)

    async def answer(self, kind: str) -> Any:
        """The next answer, which is of this kind. Raises what the stream ended with."""
        message = await soon(self._call.read())
        assert message is not grpc.aio.EOF, "the stream is over"
        assert message.WhichOneof("response") == kind, message
        return getattr(message, kind)

    async def rest(self) -> list[Any]:
        """What is left until the end. Raises what the stream ended with, unless all is well."""
        left = []
        while (message := await soon(self._call.read())) is not grpc.aio.EOF:
            left.append(message)
        assert await soon(self._call.code()) is grpc.StatusCode.OK
        return left

    def cancel(self) -> None:
        self._call.cancel()

    @classmethod
    async def close_all(cls) -> None:
        """None outlives its test."""
        while cls.living:
            stream = cls.living.pop()
            stream.cancel()
            stream.end()
            await stream._channel.close()

    async def _sent(self) -> AsyncIterator[usage_pb.IngestUsageRequest]:
        while (message := await self._requests.get()) is not None:
            yield message


def event_reasons(answer: Any) -> dict[int, str]:
    """The refused events of an ack: reasons by index."""
    return {error.index: str(error_info(error.error).reason) for error in answer.errors}


def at(time_ms: int) -> Timestamp:
    """A moment of the contract."""
    moment = Timestamp()
    moment.FromMilliseconds(time_ms)
    return moment
