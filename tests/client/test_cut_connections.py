"""The usage stream over connections that are cut at any byte, both ways."""

import asyncio
import random

import pytest
from zaaz_client import UsageStreamSettings, ZaazClient

from .peer import KEY, Peer, event, keys
from .proxy import CuttingProxy

CUTS = 8
EVENTS = 1_000
QUICK = UsageStreamSettings(
    linger_seconds=0.001, min_backoff_seconds=0.001, max_backoff_seconds=0.05
)


@pytest.mark.parametrize("seed", range(4))
async def test_connections_cut_at_any_byte_lose_and_repeat_nothing(peer: Peer, seed: int) -> None:
    chance = random.Random(seed)
    cuts = iter([chance.randint(200, 4_000) for _ in range(CUTS)])
    async with (
        asyncio.timeout(60),
        CuttingProxy(peer.port, cuts) as proxy,
        ZaazClient(proxy.target, KEY) as client,
        client.usage_stream("w", settings=QUICK) as stream,
    ):
        await stream.send_many(event(index) for index in range(EVENTS))
        await stream.flush()
    assert proxy.cut_connections == CUTS
    assert peer.writers["w"].keys == keys(EVENTS)
