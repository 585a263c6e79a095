"""A server that is killed with -9 leaves no mongod behind, and its data to the next one."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from server.mongo.client import connect
from server.mongo.embedded import EmbeddedMongod
from tests.mongo.processes import PATIENCE_SECONDS, goes_away, is_running, kill

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def killed_server(data: Path, path: str) -> AsyncIterator[int]:
    """A server that has stored a row and was killed; the pid of the mongod it had."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.mongo.server_process", str(data)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PATH": path},
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_SECONDS)
    pid, url = line.decode().split()
    async with await connect(url) as client:
        await client["test"]["rows"].insert_one({"_id": 1})
    process.kill()
    await process.wait()
    try:
        yield int(pid)
    finally:
        if is_running(int(pid)):
            kill(int(pid))


async def starts_with_its_data(data: Path) -> bool:
    mongod = EmbeddedMongod(data)
    try:
        async with await connect(await mongod.start()) as client:
            return await client["test"]["rows"].find_one() == {"_id": 1}
    finally:
        await mongod.stop()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs util-linux")
async def test_mongod_goes_with_its_server(tmp_path: Path) -> None:
    async with killed_server(tmp_path, os.environ["PATH"]) as orphan:
        assert goes_away(orphan)
        assert await starts_with_its_data(tmp_path)


async def test_next_server_need_not_wait(tmp_path: Path) -> None:
    async with killed_server(tmp_path, os.environ["PATH"]) as orphan:
        assert await starts_with_its_data(tmp_path)
        assert not is_running(orphan)


async def test_one_that_nothing_told_is_ended_by_the_next(tmp_path: Path) -> None:
    # Without setpriv on PATH, mongod outlives its server.
    async with killed_server(tmp_path, "/nonexistent") as orphan:
        assert is_running(orphan)
        assert await starts_with_its_data(tmp_path)
        assert not is_running(orphan)
