"""However the server ends, nothing of it runs on."""

import asyncio
import os
import signal

import grpc
import pytest
from zaaz.credits.v1 import usage_service_pb2 as pb

from tests.run.command import START_SECONDS
from tests.run.conftest import NewCommand
from tests.run.processes import ended, mongods, until
from tests.serving import connected, new_key

ORPHAN_SECONDS = 20.0
"""Bound on the end of a mongod whose server was killed; it takes one or two."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_server_and_mongod(
    new_command: NewCommand, number: signal.Signals
) -> None:
    server = new_command()
    await server.start()
    (mongod,) = mongods(server.data_dir)
    over = await server.stop(number)
    assert over.code == 0
    assert len(over.lines) == 1
    assert "Traceback" not in over.stderr
    await ended(mongod, 0.1)  # it was waited for: it has ended already
    assert mongods(server.data_dir) == []


async def test_mongod_has_a_session_of_its_own(new_command: NewCommand) -> None:
    """So a Ctrl-C in the terminal reaches the server alone, which ends mongod in order."""
    server = new_command()
    await server.start()
    (mongod,) = mongods(server.data_dir)
    assert os.getsid(mongod) == mongod != os.getsid(server.pid)


async def test_signal_while_starting(new_command: NewCommand) -> None:
    server = new_command()
    await server.spawn()
    await until(lambda: mongods(server.data_dir), START_SECONDS)
    over = await server.stop()
    assert over.code == 0
    assert "Traceback" not in over.stderr
    assert mongods(server.data_dir) == []


async def test_signal_while_mongod_is_started_again(new_command: NewCommand) -> None:
    server = new_command()
    ready = await server.start()
    async with connected(ready["grpc"], ready["api_key"]) as served:
        user_id = await served.new_wallet(1_000_000)
        for _ in range(3):
            await until(server.kill_mongod, START_SECONDS)
        calls = [asyncio.ensure_future(served.consume(user_id, 1)) for _ in range(8)]
        server.send(signal.SIGTERM)
        await asyncio.wait(calls)
    errors = [call.exception() for call in calls]
    assert all(error is None or _says_retry(error) for error in errors)
    over = await server.end()
    assert over.code == 0
    assert "Traceback" not in over.stderr
    assert mongods(server.data_dir) == []


def _says_retry(error: BaseException) -> bool:
    """gRPC answers a call that meets the shutdown itself with CANCELLED."""
    codes = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    return isinstance(error, grpc.aio.AioRpcError) and error.code() in codes


async def test_second_signal_changes_nothing(new_command: NewCommand) -> None:
    server = new_command()
    await server.start()
    server.send(signal.SIGINT)
    over = await server.stop(signal.SIGINT)
    assert over.code == 0
    assert mongods(server.data_dir) == []


async def test_open_streams_are_told_before_the_end(new_command: NewCommand) -> None:
    server = new_command()
    ready = await server.start()
    async with connected(ready["grpc"], ready["api_key"]) as served:
        call = served.usage.IngestUsage()
        await call.write(pb.IngestUsageRequest(open=pb.OpenUsageStream(writer_id=new_key())))
        assert (await call.read()).WhichOneof("response") == "opened"
        server.send(signal.SIGTERM)
        answers = [answer.WhichOneof("response") async for answer in call]
    assert answers == ["drain"]
    assert await call.code() is grpc.StatusCode.OK
    assert (await server.end()).code == 0


async def test_killed_server_leaves_no_mongod(new_command: NewCommand) -> None:
    server = new_command()
    await server.start()
    (mongod,) = mongods(server.data_dir)
    await server.kill()
    await ended(mongod, ORPHAN_SECONDS)
    assert mongods(server.data_dir) == []


async def test_server_killed_while_starting_leaves_no_mongod(new_command: NewCommand) -> None:
    server = new_command()
    await server.spawn()
    await until(lambda: mongods(server.data_dir), START_SECONDS)
    orphans = mongods(server.data_dir)
    await server.kill()
    for orphan in orphans:
        await ended(orphan, ORPHAN_SECONDS)
    assert mongods(server.data_dir) == []


async def test_starts_while_the_killed_ones_mongod_still_runs(new_command: NewCommand) -> None:
    server = new_command()
    await server.start()
    await server.kill()
    ready = await server.start()
    async with connected(ready["grpc"], ready["api_key"]) as served:
        await served.new_wallet(1_000_000)
    assert len(mongods(server.data_dir)) == 1
    assert (await server.stop()).code == 0
