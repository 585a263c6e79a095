"""Everything at once: a server that misbehaves, a disk that refuses now and then, crashes."""

import asyncio
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from zaaz_client import (
    SpoolFull,
    SpoolSettings,
    UsageStream,
    UsageStreamSettings,
    WhenFull,
    ZaazClient,
)

from .peer import Do, Peer, event, script

LIVES = 6
TROUBLES = [Do.DROP_BEFORE, Do.DROP_AFTER, Do.DRAIN, Do.END, Do.REJECT, Do.GAP, Do.INTERNAL]
SETTINGS = UsageStreamSettings(
    max_buffered_events=60,
    linger_seconds=0.001,
    min_backoff_seconds=0.001,
    max_backoff_seconds=0.01,
)


class Partner:
    """Sends events from several tasks, and knows which were taken for good."""

    def __init__(self, chance: random.Random) -> None:
        self.taken: set[str] = set()
        self._chance = chance
        self._made = 0

    async def work(self, stream: UsageStream) -> None:
        """Until it is cancelled."""
        while True:
            events = [event(self._next()) for _ in range(self._chance.randint(1, 20))]
            try:
                if self._chance.random() < 0.5:
                    await stream.send_many(events)
                    self.taken |= {made.usage_key for made in events}
                else:
                    await stream.send(events[0])
                    self.taken.add(events[0].usage_key)
            except SpoolFull:
                await asyncio.sleep(0.001)

    def _next(self) -> int:
        self._made += 1
        return self._made


async def crash(stream: UsageStream, directory: Path, image: Path) -> None:
    """Leave in `image` what a crash at this moment leaves, and let the stream go."""
    assert stream._spool is not None
    await stream._spool._disk.run(shutil.copytree, directory, image)
    await stream._cancel()


@pytest.mark.parametrize("when", [WhenFull.WAIT, WhenFull.RAISE])
@pytest.mark.parametrize("seed", range(3))
async def test_what_was_taken_arrives(
    peer: Peer,
    client: ZaazClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: WhenFull,
    seed: int,
) -> None:
    chance = random.Random(seed)
    real, disk_is_bad = os.fsync, False

    def fsync(opened: int) -> None:
        if disk_is_bad and chance.random() < 0.5:
            raise OSError(5, "Input/output error")
        real(opened)

    monkeypatch.setattr(os, "fsync", fsync)
    peer.max_frame_events = chance.randint(2, 12)
    partner = Partner(chance)
    for life in range(LIVES):
        peer.script = lambda _: chance.choice(TROUBLES) if chance.random() < 0.2 else Do.ACK
        spool = SpoolSettings(
            directory=tmp_path / str(life), when_full=when, linger_seconds=0, retry_seconds=0.002
        )
        # Where to begin, only the server knows in the beginning.
        away = any((tmp_path / str(life)).glob("*.log")) and chance.random() < 0.4
        if away:
            await peer.stop()
        patience = replace(SETTINGS, open_timeout_seconds=0.05 if away else 20)
        stream = client.usage_stream("w", settings=patience, spool=spool)
        await stream.__aenter__()
        disk_is_bad = chance.random() < 0.7
        working = [asyncio.create_task(partner.work(stream)) for _ in range(4)]
        await asyncio.sleep(chance.uniform(0.01, 0.05))
        if away:
            await peer.start()
            await asyncio.sleep(chance.uniform(0.01, 0.05))
        for task in working:
            task.cancel()
        await crash(stream, tmp_path / str(life), tmp_path / str(life + 1))
        disk_is_bad = False
        await asyncio.wait(working)
    peer.script = script([])
    spool = SpoolSettings(directory=tmp_path / str(LIVES))
    async with asyncio.timeout(30), client.usage_stream("w", spool=spool) as stream:
        await stream.flush()
    assert partner.taken
    assert partner.taken <= set(peer.writers["w"].keys)
