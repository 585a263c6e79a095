"""The usage stream with a spool: what one process leaves behind, the next one delivers."""

import asyncio
import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from zaaz.auth.v1.auth_service_pb2 import CreateApiKeyRequest
from zaaz_client import (
    OffsetOutOfRange,
    SpoolDamaged,
    SpoolInUse,
    SpoolOfAnotherWriter,
    SpoolSettings,
    StreamClosed,
    Unavailable,
    UsageStream,
    UsageStreamSettings,
    WriterFenced,
    ZaazClient,
    spooled_events,
)
from zaaz_client.errors import MessageTooLarge

from tests.serving import Served, new_key, usage_event

from .peer import KEY, Do, Peer, event, interaction, keys, mixed, script

QUICK = UsageStreamSettings(
    linger_seconds=0.001,
    min_backoff_seconds=0.001,
    max_backoff_seconds=0.02,
    close_timeout_seconds=0.2,
)
SMALL = UsageStreamSettings(
    max_buffered_events=60,
    linger_seconds=0.001,
    min_backoff_seconds=0.001,
    max_backoff_seconds=0.02,
)
ALONE = UsageStreamSettings(
    open_timeout_seconds=0.2,
    close_timeout_seconds=0.05,
    min_backoff_seconds=0.001,
    max_backoff_seconds=0.02,
)


@pytest.fixture
def spool(tmp_path: Path) -> SpoolSettings:
    return SpoolSettings(directory=tmp_path / "spool", linger_seconds=0)


def image(spool: SpoolSettings, name: str = "image") -> SpoolSettings:
    """The directory as a crash at this moment leaves it."""
    path = Path(spool.directory)
    return SpoolSettings(directory=shutil.copytree(path, path.with_name(name)), linger_seconds=0)


def stream_of(
    client: ZaazClient, spool: SpoolSettings, settings: UsageStreamSettings = QUICK
) -> UsageStream:
    return client.usage_stream("w", settings=settings, spool=spool)


def files(spool: SpoolSettings) -> list[Path]:
    return sorted(Path(spool.directory).glob("*.log"))


def spooled_keys(spool: SpoolSettings) -> list[str]:
    return [made.usage_key for made in spooled_events(spool.directory)]


async def test_what_was_sent_survives_a_crash(
    peer: Peer, client: ZaazClient, spool: SpoolSettings
) -> None:
    peer.gate.clear()
    events = mixed(40)
    async with asyncio.timeout(30), stream_of(client, spool) as stream:
        assert await stream.send_many(events[:38]) == 38
        assert await stream.send(event(38)) == 38
        assert await stream.send_feature_usage(interaction(39)) == 39
        crashed = image(spool)
        assert list(spooled_events(crashed.directory)) == [*events[:38], event(38), interaction(39)]
        status = stream.spool_status
        assert status is not None
        assert (status.unacknowledged_events, status.memory_events) == (40, 0)
        assert status.bytes_on_disk > 0
        peer.gate.set()
    assert peer.writers["w"].next_offset == 40

    peer.writers.clear()
    async with asyncio.timeout(30), stream_of(client, crashed) as stream:
        assert stream.next_offset == 40
    writer = peer.writers["w"]
    assert [*writer.events, *writer.interactions] == [
        *(made for made in [*events[:38], event(38)] if made.DESCRIPTOR.name == "UsageEvent"),
        *(made for made in [*events[:38], interaction(39)] if made.DESCRIPTOR.name != "UsageEvent"),
    ]
    assert spooled_keys(crashed) == []


async def test_a_crash_after_the_servers_answer_repeats_nothing(
    peer: Peer, client: ZaazClient, spool: SpoolSettings
) -> None:
    async with asyncio.timeout(30), stream_of(client, spool) as stream:
        await stream.send_many(map(event, range(40)))
        await stream.flush()
        crashed = image(spool)
    assert len(spooled_keys(crashed)) == 40
    async with stream_of(client, crashed) as stream:
        assert (stream.next_offset, stream.acknowledged_offset) == (40, 40)
        await stream.send(event(40))
    assert peer.writers["w"].keys == keys(41)


async def test_memory_keeps_its_bounds_while_the_disk_holds_more(
    peer: Peer, client: ZaazClient, spool: SpoolSettings
) -> None:
    peer.gate.clear()
    async with asyncio.timeout(30), stream_of(client, spool, SMALL) as stream:
        await stream.send_many(map(event, range(3_000)))
        assert len(stream.unacknowledged_events()) <= 30
        status = stream.spool_status
        assert status is not None
        assert status.unacknowledged_events == 3_000
        peer.gate.set()
        await stream.flush()
        assert stream.counters.acknowledged == stream.counters.sent == 3_000
    assert peer.writers["w"].keys == keys(3_000)


@pytest.mark.parametrize("seed", range(6))
async def test_any_mixture_of_troubles_and_crashes_is_survived(
    peer: Peer, client: ZaazClient, spool: SpoolSettings, seed: int
) -> None:
    chance = random.Random(seed)
    troubles = [Do.DROP_BEFORE, Do.DROP_AFTER, Do.DRAIN, Do.END, Do.REJECT, Do.GAP, Do.INTERNAL]
    peer.max_inflight_frames = chance.randint(1, 6)
    peer.max_frame_events = chance.randint(1, 12)
    peer.script = lambda _: chance.choice(troubles) if chance.random() < 0.3 else Do.ACK
    sent = 0
    for round_ in range(5):
        async with asyncio.timeout(30):
            stream = stream_of(client, spool, SMALL)
            await stream.__aenter__()
            assert stream.next_offset == sent
            for _ in range(chance.randint(0, 6)):
                more = chance.randint(1, 40)
                sent = await stream.send_many(map(event, range(sent, sent + more)))
                if chance.random() < 0.3:
                    await stream.flush()
            spool = image(spool, f"image-{round_}")
            # Not a crash, since the server goes on: but this process tidies nothing that counts.
            await stream._cancel()
    peer.script = script([])
    async with asyncio.timeout(30), stream_of(client, spool):
        pass
    assert peer.writers["w"].keys == keys(sent)


async def test_leaving_while_the_server_is_away_leaves_events_on_disk(
    peer: Peer, client: ZaazClient, spool: SpoolSettings, caplog: pytest.LogCaptureFixture
) -> None:
    peer.gate.clear()
    async with asyncio.timeout(30):
        async with stream_of(client, spool) as stream:
            await stream.send_many(map(event, range(25)))
        assert "keeps 25 events" in caplog.text

        async def broken() -> None:
            async with stream_of(client, spool) as stream:
                await stream.send_many(map(event, range(25, 30)))
                raise KeyError

        with pytest.raises(KeyError):
            await broken()
        assert spooled_keys(spool) == keys(30)
        peer.gate.set()
        async with stream_of(client, spool):
            pass
    assert peer.writers["w"].keys == keys(30)
    assert spooled_keys(spool) == []


async def test_events_are_taken_before_the_server_is_there(
    peer: Peer, client: ZaazClient, spool: SpoolSettings, caplog: pytest.LogCaptureFixture
) -> None:
    async with stream_of(client, spool) as stream:
        await stream.send(event(0))
    await peer.stop()
    async with asyncio.timeout(30):
        async with stream_of(client, spool, ALONE) as stream:
            assert "events go to the spool" in caplog.text
            assert stream.next_offset == 1
            await stream.send(event(1))
            assert not stream.connected
        assert spooled_keys(spool)[-1:] == ["key-1"]
        async with stream_of(client, spool, ALONE) as stream:
            await stream.send(event(2))
            await peer.start()
            await stream.flush()
            assert stream.acknowledged_offset == stream.next_offset == 3
    assert peer.writers["w"].keys == keys(3)


async def test_a_new_spool_needs_the_server_once(
    spool: SpoolSettings, unused_tcp_port_factory: Callable[[], int]
) -> None:
    async with ZaazClient(f"127.0.0.1:{unused_tcp_port_factory()}", KEY) as client:
        for _ in range(2):  # the directory is free again
            with pytest.raises(Unavailable, match="could not be opened"):
                await stream_of(client, spool, ALONE).__aenter__()


async def test_a_directory_is_one_streams_and_one_writers(
    client: ZaazClient, spool: SpoolSettings
) -> None:
    async with stream_of(client, spool):
        with pytest.raises(SpoolInUse):
            await client.usage_stream("v", spool=spool).__aenter__()
    with pytest.raises(SpoolOfAnotherWriter):
        await client.usage_stream("v", spool=spool).__aenter__()
    async with stream_of(client, spool):
        pass


async def test_what_ended_the_stream_leaves_its_events_on_disk(
    peer: Peer, client: ZaazClient, spool: SpoolSettings
) -> None:
    peer.script = script([Do.ACK], then=Do.FENCE)
    stream = stream_of(client, spool)
    with pytest.raises(WriterFenced):
        async with asyncio.timeout(30), stream:
            await stream.send_many(map(event, range(25)))
    for call in (stream.flush, stream.close, lambda: stream.send(event(25))):
        with pytest.raises(WriterFenced):
            await call()
    assert set(keys(25, 10)) <= set(spooled_keys(spool))
    peer.script = script([])
    async with asyncio.timeout(30), stream_of(client, spool):
        pass
    assert peer.writers["w"].keys == keys(25)


async def test_a_server_that_lost_what_is_gone_from_the_spool_is_refused(
    peer: Peer, client: ZaazClient, spool: SpoolSettings
) -> None:
    async with stream_of(client, spool) as stream:
        await stream.send_many(map(event, range(20)))
    peer.writers["w"].next_offset -= 5
    for _ in range(2):
        with pytest.raises(OffsetOutOfRange, match="data was lost"):
            await stream_of(client, spool).__aenter__()


async def test_what_the_server_lost_is_sent_again_while_the_spool_has_it(
    peer: Peer, client: ZaazClient, spool: SpoolSettings
) -> None:
    async with stream_of(client, spool) as stream:
        await stream.send_many(map(event, range(20)))
        await stream.flush()
        crashed = image(spool)
    peer.writers["w"].next_offset = 12
    del peer.writers["w"].events[12:]
    async with asyncio.timeout(30), stream_of(client, crashed):
        pass
    assert peer.writers["w"].keys == keys(20)


async def test_damage_that_is_met_while_sending_ends_the_stream(
    peer: Peer, client: ZaazClient, spool: SpoolSettings
) -> None:
    peer.gate.clear()
    async with asyncio.timeout(30), stream_of(client, spool) as stream:
        await stream.send_many(map(event, range(20)))
        crashed = image(spool)
        peer.gate.set()
    (file,) = files(crashed)
    # Sealed: only the newest file is looked at when a spool is opened.
    (file.with_name(f"{20:020}.log")).touch()
    file.write_bytes(file.read_bytes()[:-1])
    peer.writers.clear()
    with pytest.raises(SpoolDamaged, match=file.name):
        async with asyncio.timeout(30), stream_of(client, crashed):
            pass


async def test_a_cancelled_send_does_no_harm(
    peer: Peer, client: ZaazClient, spool: SpoolSettings
) -> None:
    async with asyncio.timeout(30), stream_of(client, spool) as stream:
        sending = [asyncio.create_task(stream.send(event(index))) for index in range(50)]
        await asyncio.sleep(0)
        for task in sending[::2]:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        await stream.send(event(50))
    taken = peer.writers["w"].keys
    assert len(taken) == len(set(taken))
    assert {f"key-{index}" for index in range(1, 51, 2)} <= set(taken)


async def test_many_tasks_share_a_spool(
    peer: Peer, client: ZaazClient, spool: SpoolSettings
) -> None:
    offsets: list[int] = []
    async with asyncio.timeout(30), stream_of(client, spool, SMALL) as stream:

        async def sender(start: int) -> None:
            for index in range(start, 400, 40):
                offsets.append(await stream.send(event(index)))

        await asyncio.gather(*map(sender, range(40)))
    assert sorted(peer.writers["w"].keys) == sorted(keys(400))
    assert sorted(offsets) == list(range(400))


async def test_a_closed_stream_takes_nothing(client: ZaazClient, spool: SpoolSettings) -> None:
    stream = stream_of(client, spool)
    assert stream.spool_status is None
    await stream.close()
    with pytest.raises(StreamClosed, match="async with"):
        await stream.send(event(0))
    async with stream:
        await stream.send(event(0))
        with pytest.raises(RuntimeError, match="without a wait"):
            stream.send_nowait(event(1))
        huge = event(1)
        huge.labels["note"] = "x" * 70_000
        with pytest.raises(MessageTooLarge):
            await stream.send(huge)
    with pytest.raises(StreamClosed):
        await stream.send(event(1))
    await stream.close()


@pytest.mark.parametrize("wrong", ["max_bytes", "linger_seconds", "retry_seconds"])
def test_settings_that_cannot_work_are_named(wrong: str, tmp_path: Path) -> None:
    values = {"max_bytes": 1_000, "linger_seconds": -1, "retry_seconds": 0}
    with pytest.raises(ValueError, match=wrong):
        SpoolSettings(directory=tmp_path, **{wrong: values[wrong]})  # type: ignore[arg-type]


async def test_a_spool_out_of_a_backup_bills_nothing_twice_and_loses_nothing(
    partner: ZaazClient, served: Served, spool: SpoolSettings, caplog: pytest.LogCaptureFixture
) -> None:
    user_id = await served.new_wallet(100_000_000)
    events = [usage_event(user_id) for _ in range(60)]
    writer = f"backup-{user_id}"
    async with partner.usage_stream(writer, settings=QUICK, spool=spool) as stream:
        await stream.send_many(events[:30])
        await stream.flush()
        backup = image(spool)
        await stream.send_many(events[30:50])
    with caplog.at_level(logging.WARNING, "zaaz_client"):
        async with partner.usage_stream(writer, settings=QUICK, spool=backup) as stream:
            assert stream.next_offset == 80
            await stream.send_many(events[50:])
            await stream.flush()
            assert stream.counters.duplicates == 30
            assert stream.counters.billed == 10
    assert "30 events are sent again" in caplog.text
    wallet = await served.wallet(user_id)
    assert wallet.credits_micros == 100_000_000 - 60 * 540_000
    await served.assert_sound(user_id)


async def test_whoever_is_cancelled_again_and_again_lets_the_directory_go(
    peer: Peer, client: ZaazClient, spool: SpoolSettings
) -> None:
    peer.gate.clear()
    is_open = asyncio.Event()

    async def work() -> None:
        async with stream_of(client, spool) as stream:
            await stream.send(event(0))
            is_open.set()
            await asyncio.Event().wait()

    async with asyncio.timeout(30):
        working = asyncio.create_task(work())
        await is_open.wait()
        while not working.done():
            working.cancel()
            await asyncio.sleep(0)
        peer.gate.set()
        async with stream_of(client, spool):
            pass
    assert peer.writers["w"].keys == ["key-0"]


async def test_a_directory_is_where_it_was_when_the_stream_was_opened(
    peer: Peer, client: ZaazClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spool = SpoolSettings(directory="spool", linger_seconds=0)
    async with asyncio.timeout(30), stream_of(client, spool) as stream:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        await stream.send(event(0))
        status = stream.spool_status
        assert status is not None
        assert status.trouble is None
    assert peer.writers["w"].keys == ["key-0"]


async def test_another_clients_key_bills_nothing_again(
    peer: Peer, client: ZaazClient, spool: SpoolSettings
) -> None:
    async with asyncio.timeout(30):
        peer.client_id = "one"
        async with stream_of(client, spool) as stream:
            await stream.send_many(map(event, range(3)))
            await stream.flush()
            crashed = image(spool)
        peer.client_id = "other"
        peer.writers.clear()  # it has none of that name
        with pytest.raises(SpoolOfAnotherWriter, match=r"client 'one'.* client 'other'"):
            async with stream_of(client, crashed):
                pass
        assert peer.writers["w"].keys == []
        peer.client_id = "one"
        async with stream_of(client, crashed) as stream:
            await stream.send(event(3))
    assert peer.writers["w"].keys == keys(4)


@pytest.mark.parametrize("is_spooled", [False, True])
async def test_another_clients_key_ends_a_stream_that_is_open(
    peer: Peer, client: ZaazClient, spool: SpoolSettings, is_spooled: bool
) -> None:
    def change(_: int) -> Do:
        peer.client_id = "other"
        peer.writers.clear()
        return Do.DROP_AFTER

    peer.client_id = "one"
    peer.script = change
    own = spool if is_spooled else None
    stream = client.usage_stream("w", settings=QUICK, spool=own)
    async with asyncio.timeout(30):
        await stream.__aenter__()
        await stream.send(event(0))
        for last in (stream.flush, stream.close):
            with pytest.raises(OffsetOutOfRange, match=r"client 'one'.* client 'other'"):
                await last()
    assert peer.writers["w"].keys == []


async def test_a_real_server_says_whose_key_it_is(
    served: Served, partner: ZaazClient, spool: SpoolSettings
) -> None:
    user_id = await served.new_wallet(1_000_000)
    request = CreateApiKeyRequest(request_id=new_key(), client_id="other", scopes=["usage.write"])
    other = (await served.auth.CreateApiKey(request)).key
    writer = new_key()
    async with asyncio.timeout(30):
        async with partner.usage_stream(writer, spool=spool) as stream:
            await stream.send(usage_event(user_id))
            await stream.flush()
            crashed = image(spool)
        async with ZaazClient(served.target, other) as client:
            with pytest.raises(SpoolOfAnotherWriter):
                await client.usage_stream(writer, spool=crashed).__aenter__()
