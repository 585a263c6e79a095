"""Starts that cannot be: each says why in words, ends with the right code, leaves nothing."""

import socket
from pathlib import Path

import pytest

from tests.run.conftest import NewCommand
from tests.run.processes import mongods

FAILED, WRONG_SETTINGS = 1, 2


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"grpc_address": "50051"}, ["ZAAZ_GRPC_ADDRESS"]),
        ({"grpc_address": "", "log_level": "loud"}, ["ZAAZ_GRPC_ADDRESS", "ZAAZ_LOG_LEVEL"]),
        ({"metrics_address": "127.0.0.1:http"}, ["ZAAZ_METRICS_ADDRESS"]),
        ({"secret": "short"}, ["ZAAZ_SECRET"]),
        ({"mongo_url": "localhost:27017"}, ["ZAAZ_MONGO_URL"]),
        ({"mongo_url": "mongodb://127.0.0.1:1"}, ["ZAAZ_SECRET is required with ZAAZ_MONGO_URL"]),
        ({"grpc_address": "0.0.0.0:0"}, ["ZAAZ_TLS_CERT", "ZAAZ_PLAINTEXT=trusted-network"]),
        ({"tls_cert": "/nowhere.pem"}, ["ZAAZ_TLS_CERT", "/nowhere.pem"]),
        ({"grcp_address": "127.0.0.1:0"}, ["ZAAZ_GRCP_ADDRESS", "is ZAAZ_GRPC_ADDRESS meant?"]),
        ({"mongo_database": "a.b"}, ["ZAAZ_MONGO_DATABASE"]),
    ],
)
async def test_wrong_settings_are_named(
    new_command: NewCommand, settings: dict[str, str], named: list[str]
) -> None:
    command = new_command(**settings)
    over = await command.run()
    assert over.code == WRONG_SETTINGS
    assert over.stdout == ""
    assert "Traceback" not in over.stderr
    assert all(name in over.stderr for name in named)
    assert not command.data_dir.exists()


async def test_secrets_are_not_repeated(new_command: NewCommand) -> None:
    over = await new_command(secret="hush-hush", mongo_url="mysql://user:pa55@host").run()
    assert over.code == WRONG_SETTINGS
    assert "hush-hush" not in over.stderr
    assert "pa55" not in over.stderr


async def test_file_in_place_of_the_data_directory(new_command: NewCommand, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    over = await new_command(data_dir=file).run()
    assert over.code == WRONG_SETTINGS
    assert f"{file} is a file" in over.stderr

    over = await new_command(data_dir=file / "below").run()
    assert over.code == FAILED
    assert str(file / "below") in over.stderr
    assert "Traceback" not in over.stderr


async def test_data_directory_that_cannot_be_made(new_command: NewCommand) -> None:
    over = await new_command(data_dir=Path("/proc/zaaz")).run()
    assert over.code == FAILED
    assert over.stderr.startswith("zaaz: ")
    assert "/proc/zaaz" in over.stderr
    assert "Traceback" not in over.stderr


async def test_directory_in_place_of_the_secret(new_command: NewCommand) -> None:
    command = new_command()
    (command.data_dir / "secret").mkdir(parents=True)
    over = await command.run()
    assert over.code == FAILED
    assert str(command.data_dir / "secret") in over.stderr
    assert "Traceback" not in over.stderr
    assert mongods(command.data_dir) == []


@pytest.mark.parametrize("spoilt", ["", "short\n"])
async def test_spoilt_secret(new_command: NewCommand, spoilt: str) -> None:
    command = new_command()
    command.data_dir.mkdir()
    (command.data_dir / "secret").write_text(spoilt)
    over = await command.run()
    assert over.code == FAILED
    assert f"{command.data_dir / 'secret'} holds no secret" in over.stderr
    assert "Traceback" not in over.stderr
    assert mongods(command.data_dir) == []


@pytest.mark.parametrize("setting", ["grpc_address", "metrics_address"])
async def test_address_in_use(new_command: NewCommand, setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = new_command(**{setting: address})
        over = await command.run()
    assert over.code == FAILED
    assert over.stdout == ""
    assert address in over.stderr
    assert "Traceback" not in over.stderr
    assert mongods(command.data_dir) == []


async def test_database_that_does_not_answer(new_command: NewCommand) -> None:
    url = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300"
    over = await new_command(mongo_url=url, secret="s" * 32).run()
    assert over.code == FAILED
    assert "ZAAZ_MONGO_URL" in over.stderr
    assert "Traceback" not in over.stderr


async def test_program_in_place_of_mongod_that_fails(
    new_command: NewCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    false = tmp_path / "mongod"
    false.write_text("#!/bin/sh\necho broken libraries >&2\nexit 127\n")
    false.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    over = await new_command().run()
    assert over.code == FAILED
    assert over.stderr.startswith("zaaz: ")
    assert str(false) in over.stderr
    assert "Traceback" not in over.stderr


@pytest.mark.parametrize("arguments", [("serve",), ("create-key",), ("run", "now")])
async def test_wrong_command_lines(new_command: NewCommand, arguments: tuple[str, ...]) -> None:
    over = await new_command(*arguments).run()
    assert over.code == WRONG_SETTINGS
    assert "usage: python -m server" in over.stderr
