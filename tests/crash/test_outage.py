"""The database is away for a while: callers are told so, and nothing is done twice after it."""

import asyncio
import random
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from zaaz_client import UsageStreamSettings, ZaazClient

from server.mongo.binary import find_mongod
from tests.crash.books import assert_billed_exactly_once, fund
from tests.crash.trace import make_workload
from tests.run.command import START_SECONDS, Command, free_port
from tests.run.processes import mongods, until
from tests.serving import connected, new_key, new_user, reason_of

EVENTS = 2_000
CALL_SECONDS = 60.0
RECOVERY_SECONDS = 60.0


class Switch:
    """A `mongod` on PATH that starts only while the switch is on."""

    def __init__(self, place: Path) -> None:
        self._off = place / "off"
        program = place / "bin" / "mongod"
        program.parent.mkdir()
        program.write_text(
            f'#!/bin/sh\n[ -e "{self._off}" ] && exit 1\nexec "{find_mongod()}" "$@"\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.path = program.parent

    def off(self) -> None:
        self._off.touch()

    def on(self) -> None:
        self._off.unlink()


@pytest.fixture
def switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Switch:
    switch = Switch(tmp_path)
    monkeypatch.setenv("PATH", f"{switch.path}:/usr/bin:/bin")
    return switch


@pytest.fixture
async def own_server(switch: Switch, tmp_path: Path) -> AsyncIterator[Command]:
    address = f"127.0.0.1:{free_port()}"
    server = Command(tmp_path / "data", tmp_path / "stderr", grpc_address=address)
    await server.start()
    yield server
    await server.clean_up()


async def take_away(server: Command, switch: Switch) -> None:
    """No mongod from now on."""
    switch.off()
    await until(server.kill_mongod, START_SECONDS)
    await until(lambda: not mongods(server.data_dir), START_SECONDS)


async def health_is(channel: grpc.aio.Channel, wanted: Any) -> None:
    """Returns once it is."""
    async with asyncio.timeout(RECOVERY_SECONDS):
        async for answer in HealthStub(channel).Watch(HealthCheckRequest()):
            if answer.status == wanted:
                return


async def refusal(call: Any) -> str:
    """The reason of a call that has to fail."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    return reason_of(refused.value)


async def test_calls_say_that_the_database_is_away(own_server: Command, switch: Switch) -> None:
    target, key = own_server.ready["grpc"], own_server.ready["api_key"]
    async with connected(target, key) as served, grpc.aio.insecure_channel(target) as channel:
        user_id, request_id = await served.new_wallet(10), new_key()
        await take_away(own_server, switch)
        await health_is(channel, HealthCheckResponse.NOT_SERVING)
        reasons = await asyncio.wait_for(
            asyncio.gather(
                refusal(served.consume(user_id, 1, request_id)),
                refusal(served.wallet(user_id)),
                refusal(served.new_wallet(user_id=new_user())),
                refusal(served.transactions(user_id)),
                refusal(_unknown_key(target, user_id)),
            ),
            CALL_SECONDS,
        )
        assert set(reasons) == {"DEPENDENCY_UNAVAILABLE"}

        switch.on()
        await health_is(channel, HealthCheckResponse.SERVING)
        first = await served.consume(user_id, 1, request_id)
        assert await served.consume(user_id, 1, request_id) == first
        assert (await served.wallet(user_id)).credits_micros == 9
        await served.assert_sound(user_id)


async def _unknown_key(target: str, user_id: str) -> None:
    """A key that the server has to look up: it cannot say that it is wrong."""
    made = f"zaaz_{new_user()}_{'a' * 52}"
    async with connected(target, made) as stranger:
        await stranger.wallet(user_id)


async def test_stream_goes_on_after_it(
    own_server: Command, switch: Switch, rng: random.Random
) -> None:
    workload = make_workload(EVENTS, 10, rng)
    target, key = own_server.ready["grpc"], own_server.ready["api_key"]
    settings = UsageStreamSettings(max_backoff_seconds=1.0)
    async with connected(target, key) as served, ZaazClient(target, key) as client:
        funds = await fund(served, workload)
        async with client.usage_stream(new_key(), settings=settings) as stream:
            await stream.send_many(workload.events[: EVENTS // 2])
            await take_away(own_server, switch)
            await stream.send_many(workload.events[EVENTS // 2 :])
            async with grpc.aio.insecure_channel(target) as channel:
                await health_is(channel, HealthCheckResponse.NOT_SERVING)
                switch.on()
                await health_is(channel, HealthCheckResponse.SERVING)
            await asyncio.wait_for(stream.flush(), RECOVERY_SECONDS)
        assert stream.counters.refused == 0
        await assert_billed_exactly_once(served, workload, funds)
