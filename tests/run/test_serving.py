"""`make run`: one line on stdout, a key, logs that can be read, one server per directory."""

import asyncio
import json
import stat
from pathlib import Path

import pytest

from tests.run.command import ServerEnded, free_port
from tests.run.conftest import NewCommand
from tests.run.processes import mongods
from tests.serving import MODEL, connected, usage_event


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_says_one_line_and_serves(new_command: NewCommand, tmp_path: Path) -> None:
    server = new_command()
    ready = await server.start()
    async with connected(ready["grpc"], ready["api_key"]) as served:
        # The first run has made prices, so usage is billed at once.
        user_id = await served.new_wallet(1_000_000)
        (result,) = await served.record(usage_event(user_id, ai_model=MODEL))
        assert result.receipt.credits_micros == 540_000
        await served.assert_sound(user_id)
    over = await server.stop()

    assert over.code == 0
    assert over.lines == [ready]
    assert set(ready) == {"ready", "grpc", "rest", "api_key", "data_dir"}
    assert ready["ready"] is True
    assert ready["data_dir"] == str(tmp_path / "data")
    assert Path(ready["data_dir"]).is_absolute()


async def test_logs_are_json_on_stderr(new_command: NewCommand) -> None:
    server = new_command()
    ready = await server.start()
    async with connected(ready["grpc"], ready["api_key"]) as served:
        await served.new_wallet()
    over = await server.stop()
    events = [json.loads(line) for line in over.stderr.splitlines()]
    assert any(event.get("event") == "rpc" for event in events)
    assert all({"time", "level", "logger", "event"} <= event.keys() for event in events)
    assert ready["api_key"] not in over.stderr


async def test_key_and_secret_are_kept_and_private(new_command: NewCommand) -> None:
    server = new_command()
    first = await server.start()
    key_file, secret_file = server.data_dir / "admin.key", server.data_dir / "secret"
    secret = secret_file.read_text()
    assert _mode(key_file) == _mode(secret_file) == 0o600
    assert key_file.read_text().strip() == first["api_key"]
    await server.stop()

    second = await server.start()
    assert second["api_key"] == first["api_key"]
    assert secret_file.read_text() == secret
    assert (await server.stop()).code == 0


async def test_key_that_is_no_longer_good_is_replaced(new_command: NewCommand) -> None:
    server = new_command()
    await server.start()
    await server.stop()
    key_file = server.data_dir / "admin.key"
    key_file.write_text("zaaz_nonsense\n")

    ready = await server.start()
    assert key_file.read_text().strip() == ready["api_key"]
    async with connected(ready["grpc"], ready["api_key"]) as served:
        await served.new_wallet()


async def test_relative_data_dir_is_told_in_full(new_command: NewCommand, tmp_path: Path) -> None:
    server = new_command(data_dir=tmp_path / "data" / ".." / "other")
    ready = await server.start()
    assert ready["data_dir"] == str(tmp_path / "other")


async def test_long_and_odd_data_dir_serves(new_command: NewCommand, tmp_path: Path) -> None:
    # mongod's socket takes 107 bytes, and neither comma nor colon.
    server = new_command(data_dir=tmp_path / ("long, odd: " + "x" * 100))
    ready = await server.start()
    async with connected(ready["grpc"], ready["api_key"]) as served:
        await served.new_wallet()
    assert (await server.stop()).code == 0


async def test_second_server_on_a_directory_is_refused(new_command: NewCommand) -> None:
    first = new_command()
    ready = await first.start()
    running = mongods(first.data_dir)

    with pytest.raises(ServerEnded, match=r"exit code 1: zaaz: another server runs on .*data"):
        await new_command().start()

    assert mongods(first.data_dir) == running
    async with connected(ready["grpc"], ready["api_key"]) as served:
        await served.new_wallet(1_000_000)
    assert (await first.stop()).code == 0


async def test_refused_server_makes_no_secret(new_command: NewCommand) -> None:
    """Of two that start at once on an empty directory, only the owner's secret may be kept."""
    first = new_command()
    await first.start()
    secret_file = first.data_dir / "secret"
    secret_file.unlink()
    assert (await new_command().run()).code == 1
    assert not secret_file.exists()


async def test_servers_that_start_at_once(new_command: NewCommand) -> None:
    servers = [new_command() for _ in range(4)]
    starts = await asyncio.gather(*(s.start() for s in servers), return_exceptions=True)
    (ready,) = [start for start in starts if isinstance(start, dict)]
    refusals = [start for start in starts if isinstance(start, ServerEnded)]
    assert len(refusals) == 3
    assert all("another server runs on" in str(refusal) for refusal in refusals)
    data_dir = servers[0].data_dir
    assert sorted(path.name for path in data_dir.iterdir()) == ["admin.key", "mongo", "secret"]
    assert _mode(data_dir / "secret") == 0o600
    assert (data_dir / "admin.key").read_text().strip() == ready["api_key"]


async def test_metrics_are_served_where_asked(new_command: NewCommand) -> None:
    port = free_port()
    server = new_command(metrics_address=f"127.0.0.1:{port}")
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    assert b"200 OK" in answer.splitlines()[0]
    assert b"# TYPE" in answer
    assert (await server.stop()).code == 0
