"""The embedded mongod: closed to others, one per directory, back after every death."""

import asyncio
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from server.mongo.client import connect
from server.mongo.embedded import EmbeddedMongod
from server.mongo.errors import EmbeddedMongodFailed
from server.mongo.process import MAX_LOG_BYTES
from tests.mongo.processes import (
    PATIENCE_SECONDS,
    environment_of,
    eventually,
    is_running,
    kill,
    listening_tcp_ports,
)


@pytest.fixture
async def mongod(tmp_path: Path) -> AsyncIterator[EmbeddedMongod]:
    mongod = EmbeddedMongod(tmp_path / "data")
    yield mongod
    await mongod.stop()


def pid_of(mongod: EmbeddedMongod) -> int:
    assert mongod.pid is not None
    return mongod.pid


def socket_of(url: str) -> Path:
    return Path(unquote(urlsplit(url).netloc))


async def write(url: str, row: dict[str, Any]) -> None:
    async with await connect(url) as client:
        await client["test"]["rows"].insert_one(dict(row))


async def read(url: str) -> list[dict[str, Any]]:
    async with await connect(url) as client:
        return await client["test"]["rows"].find().sort("_id").to_list()


class TestClosedToOthers:
    async def test_socket_is_for_this_user_only(
        self, mongod: EmbeddedMongod, tmp_path: Path
    ) -> None:
        socket = socket_of(await mongod.start())
        assert socket.parent == tmp_path / "data"
        assert stat.filemode(socket.stat().st_mode) == "srw-------"
        assert stat.filemode(socket.parent.stat().st_mode) == "drwx------"

    async def test_no_tcp_port(self, mongod: EmbeddedMongod) -> None:
        await mongod.start()
        assert listening_tcp_ports(pid_of(mongod)) == set()

    async def test_no_secret_of_ours_in_its_environment(
        self, mongod: EmbeddedMongod, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ZAAZ_SECRET", "do not tell")
        await mongod.start()
        assert b"do not tell" not in environment_of(pid_of(mongod))

    async def test_has_a_session_of_its_own(self, mongod: EmbeddedMongod) -> None:
        await mongod.start()
        assert os.getsid(pid_of(mongod)) == pid_of(mongod)


class TestDirectory:
    async def test_data_stays_over_stop_and_start(self, mongod: EmbeddedMongod) -> None:
        url = await mongod.start()
        await write(url, {"_id": 1})
        pid, socket = pid_of(mongod), socket_of(url)
        await mongod.stop()
        assert not is_running(pid)
        assert not socket.exists()
        assert await read(await mongod.start()) == [{"_id": 1}]

    async def test_data_moves_with_the_directory(
        self, mongod: EmbeddedMongod, tmp_path: Path
    ) -> None:
        await write(await mongod.start(), {"_id": 1})
        await mongod.stop()
        shutil.move(tmp_path / "data", tmp_path / "moved")
        moved = EmbeddedMongod(tmp_path / "moved")
        try:
            url = await moved.start()
            await write(url, {"_id": 2})
            assert await read(url) == [{"_id": 1}, {"_id": 2}]
        finally:
            await moved.stop()

    @pytest.mark.parametrize("name", ["long" * 30, "odd, with: a space", "Capital"])
    async def test_path_that_is_no_socket_path(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Not below tmp_path, which may be long itself.
        runtime = Path(tempfile.mkdtemp())
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        mongod = EmbeddedMongod(tmp_path / name)
        try:
            url = await mongod.start()
            socket = socket_of(url)
            assert socket.parent.parent == runtime
            assert stat.filemode(socket.parent.stat().st_mode) == "drwx------"
            await write(url, {"_id": 1})
        finally:
            await mongod.stop()
            shutil.rmtree(runtime)

    async def test_private_directory_of_somebody_else_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        mongod = EmbeddedMongod(tmp_path / "odd,")
        url = await mongod.start()
        await mongod.stop()
        private = socket_of(url).parent
        private.mkdir(exist_ok=True)
        private.chmod(0o755)
        with pytest.raises(EmbeddedMongodFailed, match="not private"):
            await mongod.start()

    async def test_belongs_to_one_server(self, mongod: EmbeddedMongod, tmp_path: Path) -> None:
        url = await mongod.start()
        with pytest.raises(EmbeddedMongodFailed, match="another server runs"):
            await EmbeddedMongod(tmp_path / "data").start()
        await write(url, {"_id": 1})

    async def test_log_is_bounded(self, mongod: EmbeddedMongod, tmp_path: Path) -> None:
        data = tmp_path / "data"
        data.mkdir()
        with (data / "mongod.log").open("wb") as log:
            log.truncate(MAX_LOG_BYTES + 1)
        await mongod.start()
        assert (data / "mongod.log").stat().st_size < MAX_LOG_BYTES
        assert (data / "mongod.log.1").stat().st_size == MAX_LOG_BYTES + 1


class TestSupervision:
    async def test_dead_one_is_started_again(self, mongod: EmbeddedMongod) -> None:
        url = await mongod.start()
        await write(url, {"_id": 1})
        killed = pid_of(mongod)
        assert mongod.healthy
        kill(killed)
        await eventually(lambda: not mongod.healthy)
        await asyncio.wait_for(mongod.wait_healthy(), PATIENCE_SECONDS)
        assert pid_of(mongod) != killed
        assert await read(url) == [{"_id": 1}]

    async def test_goes_on_trying_and_says_why(
        self, mongod: EmbeddedMongod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await mongod.start()
        with monkeypatch.context() as patch:
            broken = tmp_path / "bin" / "mongod"
            broken.parent.mkdir()
            broken.write_text("#!/bin/sh\necho out of order\nexit 3\n")
            broken.chmod(0o755)
            patch.setenv("PATH", str(broken.parent), prepend=os.pathsep)
            kill(pid_of(mongod))
            await eventually(lambda: mongod.last_failure is not None)
            assert "exit code 3: out of order" in (mongod.last_failure or "")
            assert not mongod.healthy
        await asyncio.wait_for(mongod.wait_healthy(), PATIENCE_SECONDS)
        assert mongod.last_failure is None

    async def test_stop_is_final_and_idempotent(self, mongod: EmbeddedMongod) -> None:
        await mongod.start()
        kill(pid_of(mongod))
        await mongod.stop()
        await mongod.stop()
        assert mongod.pid is None
        assert not mongod.healthy
