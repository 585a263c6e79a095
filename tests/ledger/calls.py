"""What tests of the contract say over and over: a refusal expected, a stream driven by hand."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2
from zaaz.credits.v1 import usage_service_pb2 as usage_pb

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
    """An IngestUsage stream, message by message."""

    def __init__(self, served: Served) -> None:
        self._call = served.usage.IngestUsage()

    @classmethod
    async def opened(cls, served: Served, writer_id: str) -> tuple["Ingest", Any]:
        """The stream, and what `open` was answered with."""
        stream = cls(served)
        await stream.open(writer_id)
        return stream, (await stream.answer("opened"))

    async def open(self, writer_id: str) -> None:
        opening = usage_pb.OpenUsageStream(writer_id=writer_id)
        await self._send(usage_pb.IngestUsageRequest(open=opening))

    async def frame(self, offset: int, *events: usage_pb.UsageEvent) -> None:
        frame = usage_pb.UsageFrame(offset=offset, events=events)
        await self._send(usage_pb.IngestUsageRequest(frame=frame))

    async def answer(self, kind: str) -> Any:
        """The next answer, which is of this kind."""
        message = await soon(self._call.read())
        assert message is not grpc.aio.EOF, await self._call.code()
        assert message.WhichOneof("response") == kind, message
        return getattr(message, kind)

    async def end(self) -> None:
        """Nothing more comes from this side."""
        await soon(self._call.done_writing())

    async def is_over(self) -> bool:
        """Whether the stream has ended well, with no answer left."""
        ended = await soon(self._call.read()) is grpc.aio.EOF
        return ended and await soon(self._call.code()) is grpc.StatusCode.OK

    async def rest(self) -> None:
        """Reads until the end; raises its error."""
        while await soon(self._call.read()) is not grpc.aio.EOF:
            pass
        code = await soon(self._call.code())
        if code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                code,
                await self._call.initial_metadata(),
                await self._call.trailing_metadata(),
                await self._call.details(),
            )

    def cancel(self) -> None:
        self._call.cancel()

    async def _send(self, message: usage_pb.IngestUsageRequest) -> None:
        await soon(self._call.write(message))


def event_reasons(answer: Any) -> dict[int, str]:
    """The refused events of an ack: reasons by index."""
    return {error.index: str(error_info(error.error).reason) for error in answer.errors}


def at(time_ms: int) -> Timestamp:
    """A moment of the contract."""
    moment = Timestamp()
    moment.FromMilliseconds(time_ms)
    return moment
