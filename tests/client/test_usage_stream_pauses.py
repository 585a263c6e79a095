"""How long a usage stream waits before it goes on: what is awaited, not what a clock says."""

import grpc
import pytest
import zaaz_client.usage_stream
from zaaz_client import UsageStreamSettings, ZaazClient
from zaaz_client.backoff import MAX_RETRY_DELAY_SECONDS

from tests.ledger.calls import soon

from .peer import Do, Peer, event, keys, script, status
from .waits import Pauses, clocked, without_jitter

STREAM = UsageStreamSettings(linger_seconds=0, min_backoff_seconds=50, max_backoff_seconds=150)


async def test_a_throttled_one_waits_as_long_as_it_is_told(
    peer: Peer, client: ZaazClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = Pauses(monkeypatch)
    peer.script = script([Do.THROTTLE])
    peer.throttle_seconds = 7.5
    async with client.usage_stream("w", settings=STREAM) as stream:
        await stream.send(event(0))
        await soon(stream.flush())
        await stream.send(event(1))
        assert [await pauses.next() for _ in range(2)] == [0, 7.5]
        assert peer.received_frames == 1
        pauses.end()
        await soon(stream.flush())
    assert peer.writers["w"].keys == keys(2)
    assert peer.opens == 1


async def test_no_throttle_is_for_ever(
    peer: Peer, client: ZaazClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = Pauses(monkeypatch)
    peer.script = script([Do.THROTTLE])
    peer.throttle_seconds = 100_000
    async with client.usage_stream("w", settings=STREAM) as stream:
        await stream.send(event(0))
        await soon(stream.flush())
        await stream.send(event(1))
        assert [await pauses.next() for _ in range(2)] == [0, MAX_RETRY_DELAY_SECONDS]
        pauses.end()


async def test_a_rejected_frame_waits_longer_each_time_until_one_is_taken(
    peer: Peer, client: ZaazClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_jitter(monkeypatch)
    pauses = Pauses(monkeypatch)
    peer.script = script([Do.REJECT] * 4 + [Do.ACK, Do.REJECT])
    async with client.usage_stream("w", settings=STREAM) as stream:
        for index, expected in enumerate([(50, 100, 150, 150), (50,)]):
            await stream.send(event(index))
            for pause in expected:
                assert [await pauses.next() for _ in range(2)] == [0, pause]
                pauses.end()
            assert await pauses.next() == 0
            await soon(stream.flush())
    assert peer.writers["w"].keys == keys(2)
    assert peer.opens == 1


async def test_a_rejected_frame_waits_for_what_the_server_asks(
    peer: Peer, client: ZaazClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_jitter(monkeypatch)
    pauses = Pauses(monkeypatch)
    peer.rejections[Do.REJECT] = status(grpc.StatusCode.UNAVAILABLE, "OVERLOADED", retry_seconds=7)
    peer.script = script([Do.REJECT])
    async with client.usage_stream("w", settings=STREAM) as stream:
        await stream.send(event(0))
        assert [await pauses.next() for _ in range(2)] == [0, 57]
        assert peer.received_frames == 1
        pauses.end()
    assert peer.writers["w"].keys == keys(1)


async def test_a_lost_one_is_opened_again_after_a_wait_that_grows(
    peer: Peer, client: ZaazClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_jitter(monkeypatch)
    clock = clocked(monkeypatch, zaaz_client.usage_stream)
    peer.script = script([Do.DROP_BEFORE] * 3 + [Do.ACK, Do.DROP_BEFORE])
    async with client.usage_stream("w", settings=STREAM) as stream:
        for index in range(2):
            await stream.send(event(index))
            await soon(stream.flush())
    assert clock.sleeps == [50, 100, 150, 50]
    assert peer.opens == 5


async def test_one_that_the_server_ends_is_not_opened_sooner_than_it_asks(
    peer: Peer, client: ZaazClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_jitter(monkeypatch)
    clock = clocked(monkeypatch, zaaz_client.usage_stream)
    peer.ends[Do.INTERNAL] = status(grpc.StatusCode.UNAVAILABLE, "DRAINING", retry_seconds=7)
    peer.script = script([Do.INTERNAL])
    async with client.usage_stream("w", settings=STREAM) as stream:
        await stream.send(event(0))
        await soon(stream.flush())
    assert clock.sleeps == [57]
