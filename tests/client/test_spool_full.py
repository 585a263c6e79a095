"""A spool whose disk is full or broken: what then happens is the caller's choice, and is told."""

import asyncio
import os
import resource
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from zaaz.credits.v1.feature_usage_log_pb2 import FeatureUsageEvent
from zaaz_client import (
    SpoolFull,
    SpoolSettings,
    SpoolStatus,
    UsageStream,
    UsageStreamSettings,
    WhenFull,
    WriterFenced,
    ZaazClient,
    spooled_events,
)
from zaaz_client.spool.log import SpoolLog

from tests.run.processes import until

from .peer import Do, Peer, event, interaction, script

MIB = 1024 * 1024
SIZE = 200_000
FIT = 5
"""So many interactions of SIZE bytes are in a MiB with room for no other."""
SETTINGS = UsageStreamSettings(
    linger_seconds=0.001,
    min_backoff_seconds=0.001,
    max_backoff_seconds=0.02,
    close_timeout_seconds=10,
)

Heal = Callable[[], None]


def large(index: int) -> FeatureUsageEvent:
    made = interaction(index)
    made.payload.string_value = "x" * SIZE
    return made


class Full:
    """A stream on a spool that takes FIT events of SIZE and then no more, until `heal`."""

    def __init__(self, path: Path, when_full: WhenFull, max_bytes: int, heal: Heal) -> None:
        self.told: list[SpoolFull] = []
        self.heal = heal
        self.settings = SpoolSettings(
            directory=path,
            max_bytes=max_bytes,
            when_full=when_full,
            linger_seconds=0,
            retry_seconds=0.02,
            on_full=self.told.append,
        )

    def stream(self, client: ZaazClient) -> UsageStream:
        return client.usage_stream("w", settings=SETTINGS, spool=self.settings)

    def on_disk(self) -> list[str]:
        """As the next process would find it."""
        path = Path(self.settings.directory)
        copy = shutil.copytree(path, path.parents[1] / "copy")
        try:
            return [made.usage_key for made in spooled_events(copy)]
        finally:
            shutil.rmtree(copy)


Make = Callable[[WhenFull], Full]


def _nothing() -> None:
    pass


@pytest.fixture(params=["max_bytes", "file_size", "tmpfs", "fsync"])
def full(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Make]:
    """Spools that are full for each of the reasons."""
    path = tmp_path / "disk" / "spool"
    path.parent.mkdir()
    match request.param:
        case "max_bytes":
            yield lambda when: Full(path, when, MIB, _nothing)
        case "file_size":
            with file_size_limit() as heal:
                yield lambda when: Full(path, when, 64 * MIB, heal)
        case "tmpfs":
            with small_disk(path.parent) as heal:
                yield lambda when: Full(path, when, 64 * MIB, heal)
        case _:
            heal = break_fsync(monkeypatch)
            yield lambda when: Full(path, when, 64 * MIB, heal)


class file_size_limit:  # noqa: N801 - a context
    """No file of this process may pass a MiB: EFBIG, whoever runs the test."""

    def __enter__(self) -> Heal:
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, self._before[1]))
        return self._heal

    def _heal(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)

    def __exit__(self, *_: object) -> None:
        self._heal()


class small_disk:  # noqa: N801 - a context
    """A file system of a MiB: ENOSPC. Skips where none may be mounted."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Heal:
        if not self._mount("size=1m"):
            pytest.skip("mounting is not permitted")
        return lambda: self._check(self._mount("remount,size=64m"))

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(self._path)]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            return False

    def _check(self, done: bool) -> None:
        assert done

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self._path)], check=True)


def break_fsync(monkeypatch: pytest.MonkeyPatch) -> Heal:
    """A disk that breaks once it has a MiB's worth: EIO."""
    real = os.fsync
    healed = False

    def fsync(opened: int) -> None:
        if not healed and os.fstat(opened).st_size > MIB:
            raise OSError(5, "Input/output error")
        real(opened)

    def heal() -> None:
        nonlocal healed
        healed = True

    monkeypatch.setattr(os, "fsync", fsync)
    return heal


@asynccontextmanager
async def blocked(peer: Peer) -> AsyncIterator[None]:
    """The server answers nothing until the end."""
    peer.gate.clear()
    try:
        async with asyncio.timeout(30):
            yield
    finally:
        peer.gate.set()


def status_of(stream: UsageStream) -> SpoolStatus:
    status = stream.spool_status
    assert status is not None
    return status


def kept(peer: Peer) -> list[str]:
    return [made.usage_key for made in peer.writers["w"].interactions]


def names(count: int) -> list[str]:
    return [f"key-{index}" for index in range(count)]


async def fill(stream: UsageStream, spool: Full) -> None:
    """Send what fits; the rest of the room is less than an event."""
    for index in range(FIT):
        await stream.send_feature_usage(large(index))
    assert spool.told == []


async def test_wait(
    full: Make, peer: Peer, client: ZaazClient, caplog: pytest.LogCaptureFixture
) -> None:
    spool = full(WhenFull.WAIT)
    async with blocked(peer), spool.stream(client) as stream:
        await fill(stream, spool)
        sending = [
            asyncio.create_task(stream.send_feature_usage(large(FIT + index))) for index in range(4)
        ]
        await until(lambda: bool(spool.told), 20)
        spool.heal()
        if spool.settings.max_bytes > MIB:  # the disk is back, the server is not
            await asyncio.gather(*sending)
            assert spool.on_disk() == names(FIT + 4)
        else:
            assert not any(task.done() for task in sending)
        peer.gate.set()
        assert await asyncio.gather(*sending) == [FIT, FIT + 1, FIT + 2, FIT + 3]
        await stream.flush()
        assert stream.counters.not_durable == 0
    assert kept(peer) == names(FIT + 4)
    told = [record for record in caplog.records if "senders wait" in record.getMessage()]
    assert len(told) == len(spool.told) == stream.counters.spool_full == 1


async def test_wait_is_over_when_the_server_has_it(
    full: Make, peer: Peer, client: ZaazClient
) -> None:
    """Though the disk never comes back."""
    spool = full(WhenFull.WAIT)
    async with blocked(peer), spool.stream(client) as stream:
        await fill(stream, spool)
        peer.gate.set()
        assert await stream.send_many(map(large, range(FIT, FIT + 40))) == FIT + 40
    assert kept(peer) == names(FIT + 40)


@pytest.mark.parametrize("when", [WhenFull.WAIT, WhenFull.MEMORY])
async def test_what_ends_the_stream_ends_the_wait(
    full: Make, peer: Peer, client: ZaazClient, when: WhenFull
) -> None:
    spool = full(when)
    peer.script = script([], then=Do.FENCE)
    async with blocked(peer):
        stream = await spool.stream(client).__aenter__()
        await fill(stream, spool)
        sending = asyncio.create_task(stream.send_many(map(large, range(FIT, FIT + 100))))
        await until(lambda: bool(spool.told), 20)
        peer.gate.set()
        with pytest.raises(WriterFenced):
            await sending
        with pytest.raises(WriterFenced):
            await stream.close()
        assert spool.on_disk()[:FIT] == names(FIT)


async def test_raise(
    full: Make, peer: Peer, client: ZaazClient, caplog: pytest.LogCaptureFixture
) -> None:
    spool = full(WhenFull.RAISE)
    async with blocked(peer), spool.stream(client) as stream:
        await fill(stream, spool)
        for _ in range(3):
            with pytest.raises(SpoolFull) as raised:
                await stream.send_feature_usage(large(99))
            assert raised.value.retryable
        with pytest.raises(SpoolFull):
            await stream.send_many(map(large, range(90, 95)))
        with pytest.raises(SpoolFull):
            await stream.send_many([interaction(FIT), *map(large, range(90, 95))])
        assert stream.next_offset == FIT == stream.counters.sent
        assert status_of(stream).trouble is not None
        assert spool.on_disk() == names(FIT)
        spool.heal()
        peer.gate.set()
        await stream.flush()
        assert await stream.send_feature_usage(large(FIT)) == FIT
        assert status_of(stream).trouble is None
    assert kept(peer) == names(FIT + 1)
    told = [record for record in caplog.records if "are refused" in record.getMessage()]
    assert len(told) == len(spool.told) == stream.counters.spool_full == 1


async def test_memory(
    full: Make, peer: Peer, client: ZaazClient, caplog: pytest.LogCaptureFixture
) -> None:
    spool = full(WhenFull.MEMORY)
    async with blocked(peer), spool.stream(client) as stream:
        await fill(stream, spool)
        for index in range(FIT, FIT + 10):
            assert await stream.send_feature_usage(large(index)) == index
        assert stream.counters.not_durable == 10
        assert status_of(stream).memory_events == 10
        assert spool.on_disk() == names(FIT)
        spool.heal()
        if spool.settings.max_bytes > MIB:
            await until(lambda: status_of(stream).memory_events == 0, 20)
            assert spool.on_disk() == names(FIT + 10)
        peer.gate.set()
        await stream.flush()
        sent = FIT + 10
        while sent == FIT + 10 or status_of(stream).trouble is not None:
            # Acknowledged before the disk was tried again, one does not tell.
            await stream.send_feature_usage(large(sent))
            sent += 1
    assert kept(peer) == names(sent)
    told = [record for record in caplog.records if "in memory alone" in record.getMessage()]
    assert len(told) == len(spool.told) == stream.counters.spool_full == 1


async def test_memory_is_bounded_as_without_a_spool(
    full: Make, peer: Peer, client: ZaazClient
) -> None:
    spool = full(WhenFull.MEMORY)
    settings = UsageStreamSettings(max_buffered_events=10, linger_seconds=0.001)
    async with blocked(peer):
        stream = client.usage_stream("w", settings=settings, spool=spool.settings)
        async with stream:
            await fill(stream, spool)
            sending = asyncio.create_task(stream.send_many(map(large, range(FIT, FIT + 20))))
            await until(lambda: status_of(stream).memory_events == 5, 20)
            assert len(stream.unacknowledged_events()) <= 5
            assert not sending.done()
            peer.gate.set()
            await sending
    assert kept(peer) == names(FIT + 20)


async def test_what_the_disk_missed_is_not_missed_by_the_next_process(
    full: Make, peer: Peer, client: ZaazClient
) -> None:
    """The disk comes back after the server has more than it."""
    spool = full(WhenFull.MEMORY)
    async with blocked(peer):
        stream = await spool.stream(client).__aenter__()
        await fill(stream, spool)
        await stream.send_many(map(large, range(FIT, FIT + 6)))
        peer.gate.set()
        await stream.flush()
        peer.gate.clear()
        spool.heal()
        await stream.send_feature_usage(large(FIT + 6))
        await until(lambda: status_of(stream).memory_events == 0, 20)
        held = spool.on_disk()  # what was acknowledged made room for the last ones, or the last
        assert held == names(FIT + 7)[-len(held) :] != names(FIT + 7)
        await stream._cancel()  # with which it is told nothing more, and closes the directory
        async with spool.stream(client) as stream:
            assert stream.next_offset == FIT + 7
            peer.gate.set()
    assert kept(peer) == names(FIT + 7)


async def test_a_disk_that_stays_broken_holds_nothing_up(
    tmp_path: Path, peer: Peer, client: ZaazClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a write nor a deletion comes to an end on it."""
    spool = SpoolSettings(directory=tmp_path, max_bytes=MIB, linger_seconds=0, retry_seconds=60)
    settings = UsageStreamSettings(max_buffered_events=4, linger_seconds=0.001)
    stream = client.usage_stream("w", settings=settings, spool=spool)
    async with blocked(peer), stream:
        await stream.send_many(map(large, range(3)))

        def broken(*_: object) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "fsync", broken)
        peer.gate.set()
        await stream.send_many(map(large, range(3, 40)))
        await stream.flush()
    assert kept(peer) == names(40)


async def test_a_handler_that_fails_does_no_harm(
    tmp_path: Path, peer: Peer, client: ZaazClient, caplog: pytest.LogCaptureFixture
) -> None:
    def on_full(_: SpoolFull) -> None:
        raise RuntimeError("a caller's mistake")

    spool = SpoolSettings(
        directory=tmp_path, max_bytes=MIB, on_full=on_full, linger_seconds=0, retry_seconds=0.02
    )
    async with asyncio.timeout(30), client.usage_stream("w", spool=spool) as stream:
        await stream.send_many(map(large, range(30)))
    assert kept(peer) == names(30)
    assert stream.counters.spool_full == caplog.text.count("on_full failed") >= 1


async def test_of_many_none_is_taken_behind_one_that_was_refused(
    peer: Peer, client: ZaazClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = SpoolSettings(directory=tmp_path, when_full=WhenFull.RAISE, linger_seconds=0)
    narrow = UsageStreamSettings(max_buffered_events=20)
    real = SpoolLog.append
    tries = 0

    def append(log: SpoolLog, offset: int, events: Sequence[bytes], acknowledged: int) -> None:
        nonlocal tries
        tries += 1
        if tries == 2:
            raise SpoolFull("full for a moment")
        real(log, offset, events, acknowledged)

    monkeypatch.setattr(SpoolLog, "append", append)
    async with asyncio.timeout(30):
        async with client.usage_stream("w", settings=narrow, spool=spool) as stream:
            with pytest.raises(SpoolFull):
                await stream.send_many(map(event, range(45)))
            taken = stream.next_offset
            await stream.send_many(map(event, range(taken, 45)))
    assert 0 < taken < 45
    assert peer.writers["w"].keys == names(45)


async def test_files_that_somebody_removes_are_missed(
    peer: Peer, client: ZaazClient, tmp_path: Path
) -> None:
    told: list[SpoolFull] = []
    spool = SpoolSettings(
        directory=tmp_path / "spool", when_full=WhenFull.RAISE, on_full=told.append
    )
    async with asyncio.timeout(30), client.usage_stream("w", spool=spool) as stream:
        await stream.send(event(0))
        await stream.flush()
        shutil.rmtree(tmp_path / "spool")
        with pytest.raises(SpoolFull):
            await stream.send(event(1))
    assert len(told) == 1
