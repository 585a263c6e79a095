"""IngestUsage and what it must bear: bytes that are no frame, and a client that reads nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from zaaz.credits.v1 import usage_service_pb2 as pb

from server.credits import rejections
from server.credits.stream import MAX_INFLIGHT_FRAMES, UsageStream
from tests.ledger.calls import PRICE, refused, soon
from tests.run.processes import until
from tests.serving import Served, new_key, usage_event
from tests.usage.partners import partner

INT64_MAX = 2**63 - 1
FUNDS = 100_000 * PRICE


def events(user_id: str, count: int, **fields: Any) -> list[pb.UsageEvent]:
    return [usage_event(user_id, **fields) for _ in range(count)]


async def spent(served: Served, user_id: str) -> int:
    """How many events were billed: each costs PRICE. The wallet is sound."""
    await served.assert_sound(user_id)
    return (FUNDS - (await served.wallet(user_id)).credits_micros) // PRICE


def standing(ack: Any) -> tuple[int, int, int]:
    return ack.through_offset, ack.billed_events, ack.duplicate_events


@asynccontextmanager
async def raw_stream(served: Served) -> AsyncIterator[Any]:
    """A stream that sends bytes."""
    async with grpc.aio.insecure_channel(served.target) as channel:
        method: Any = channel.stream_stream(
            "/zaaz.credits.v1.UsageService/IngestUsage",
            request_serializer=lambda raw: raw,
            response_deserializer=pb.IngestUsageResponse.FromString,
        )
        call = method(metadata=(("authorization", f"Bearer {served.api_key}"),))
        opening = pb.IngestUsageRequest(open=pb.OpenUsageStream(writer_id=new_key()))
        await soon(call.write(opening.SerializeToString()))
        assert (await soon(call.read())).HasField("opened")
        yield call


def frame_bytes(offset: int, *sent: pb.UsageEvent) -> bytes:
    frame = pb.UsageFrame(offset=offset, events=sent)
    return pb.IngestUsageRequest(frame=frame).SerializeToString()


class TestBadMessages:
    async def test_invalid_utf8_ends_the_stream_once_frames_are_answered(
        self, served: Served
    ) -> None:
        user_id = await served.new_wallet(FUNDS)
        bad = frame_bytes(1, usage_event(user_id, usage_key="marker"))
        assert b"marker" in bad
        async with raw_stream(served) as call:
            await soon(call.write(frame_bytes(0, usage_event(user_id))))
            await soon(call.write(bad.replace(b"marker", b"m\xff\xfeker")))
            assert standing((await soon(call.read())).ack) == (1, 1, 0)
            with refused("MALFORMED_MESSAGE"):
                await _to_the_end(call)
        assert await spent(served, user_id) == 1

    async def test_bytes_that_are_no_message_end_the_stream(self, served: Served) -> None:
        async with raw_stream(served) as call:
            await soon(call.write(b"\xff\xff\xff\xff"))
            with refused("MALFORMED_MESSAGE"):
                await _to_the_end(call)

    async def test_a_message_above_four_mebibytes_ends_the_stream(self, served: Served) -> None:
        user_id = await served.new_wallet(FUNDS)
        labels = {f"k{place}": "x" * 255 for place in range(16)}
        large = frame_bytes(1, *events(user_id, 1_000, labels=labels))
        assert 4 * 1_024 * 1_024 < len(large) < 8 * 1_024 * 1_024
        async with raw_stream(served) as call:
            await soon(call.write(frame_bytes(0, usage_event(user_id))))
            await soon(call.write(large))
            assert standing((await soon(call.read())).ack) == (1, 1, 0)
            with refused("MESSAGE_TOO_LARGE") as refusal:
                await _to_the_end(call)
        assert refusal.metadata == {"size_bytes": str(len(large)), "limit_bytes": "4194304"}
        assert await spent(served, user_id) == 1

    async def test_what_grpc_itself_refuses_bills_nothing(self, served: Served) -> None:
        user_id = await served.new_wallet(FUNDS)
        async with raw_stream(served) as call:
            await soon(call.write(b"\0" * (8 * 1_024 * 1_024 + 1)))
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await _to_the_end(call)
        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await spent(served, user_id) == 0


async def _to_the_end(call: Any) -> None:
    while await soon(call.read()) is not grpc.aio.EOF:
        pass
    code = await soon(call.code())
    if code is not grpc.StatusCode.OK:
        raise grpc.aio.AioRpcError(
            code, await call.initial_metadata(), await call.trailing_metadata()
        )


class TestWindow:
    async def test_a_client_that_does_not_read_is_not_read_either(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Answers of 300 KB fill the connection; then at most the window's frames are held."""
        monkeypatch.setattr(rejections, "MAX_KEPT_PER_CLIENT", 1)
        held, most, taken = 0, 0, 0
        take, settle = UsageStream._take, UsageStream._settle

        async def counted_take(stream: UsageStream, frame: pb.UsageFrame) -> Any:
            nonlocal held, most, taken
            taken += 1
            held += 1
            most = max(most, held)
            return await take(stream, frame)

        async def counted_settle(*arguments: Any) -> Any:
            nonlocal held
            held -= 1
            return await settle(*arguments)

        monkeypatch.setattr(UsageStream, "_take", counted_take)
        monkeypatch.setattr(UsageStream, "_settle", counted_settle)
        user_id = await served.new_wallet(FUNDS)
        frames = 60
        bad = events(user_id, 999, ai_model="x/y")
        async with partner(served) as other, raw_stream(other) as call:
            await other.record(bad[0])

            async def send() -> None:
                for place in range(frames):
                    await call.write(frame_bytes(place * 1_000, *bad, usage_event(user_id)))
                await call.done_writing()

            sending = asyncio.create_task(send())
            await until(lambda: held >= MAX_INFLIGHT_FRAMES - 1, 20)
            assert taken < frames
            for place in range(frames):
                ack = (await soon(call.read())).ack
                assert standing(ack) == ((place + 1) * 1_000, 1, 0)
                assert len(ack.errors) == 999
            await _to_the_end(call)
            await soon(sending)
        assert most in (MAX_INFLIGHT_FRAMES - 1, MAX_INFLIGHT_FRAMES)
        assert await spent(served, user_id) == frames
