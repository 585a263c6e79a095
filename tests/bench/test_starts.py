"""Starts are timed to SERVING, and cold ones begin with kill -9 of server and mongod."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zaaz.wallet.v1 import wallet_service_pb2
from zaaz.wallet.v1.wallet_service_pb2_grpc import WalletServiceStub

from bench import starts
from bench.processes import Served
from bench.setting import Bench, Plan
from bench.wallets import make_wallets

_WAIT = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"


async def test_kill_returns_once_both_have_ended() -> None:
    processes = []
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _WAIT, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        await process.stdout.readline()
        processes.append(process)
    server, mongod = (process.pid for process in processes)
    try:
        await starts.kill(Served("", "", "", {"server": server, "mongod": mongod}))
    except BaseException:
        for process in processes:
            process.kill()
        raise
    assert [await process.wait() for process in processes] == [-9, -9]


@given(st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=7))
def test_seconds_are_named(seconds: list[float]) -> None:
    said = starts.named(seconds)
    assert list(said) == ["median", "least", "most"]
    assert said["least"] <= said["median"] <= said["most"]


async def test_a_cold_start_finds_what_was_there_before_the_kill(tmp_path: Path) -> None:
    worked: list[Served] = []
    users: list[str] = []
    seconds: list[float] = []

    async def work(served: Served) -> None:
        worked.append(served)
        async with grpc.aio.insecure_channel(served.target) as channel:
            if not users:
                users.extend(await make_wallets(channel, served, 1))
            request = wallet_service_pb2.GetWalletRequest(user_id=users[0])
            stub: Any = WalletServiceStub(channel)
            await stub.GetWallet(request, metadata=served.metadata)

    for _ in range(2):
        await starts.start_and_kill(tmp_path, seconds, work)
        assert not any(_runs(pid) for pid in _of_server(worked[-1]))
    first, again = worked
    assert first.pids["mongod"] != again.pids["mongod"]
    assert len(seconds) == 2
    assert min(seconds) > 0


async def test_cold_starts_are_of_the_ledger_of_no_files_and_of_no_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    async def kill(_: Served) -> None:
        asked.append(("kill", False))

    async def start(
        directory: Path,
        seconds: list[float],
        work: object = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        database = (environment or {}).get("ZAAZ_MONGO_DATABASE", "")
        asked.append((database, _is_empty(directory)))
        (directory / "mongo").touch()
        seconds.append(float(len(asked)))

    monkeypatch.setattr(starts, "kill", kill)
    monkeypatch.setattr(starts, "start_and_kill", start)
    (tmp_path / "mongo").touch()
    served = Served("", "", "", {})
    async with grpc.aio.insecure_channel("localhost:1") as channel:
        bench = Bench(served, channel, tmp_path, Plan(1))
        said = await starts.cold_starts(bench, "grown", starts.nothing, 2)
    # The ledger's own server is ended first; a directory is empty only when it is new.
    assert asked == [("kill", False), *[("grown", False), ("", True), ("", False)] * 2]
    assert said == {
        "grown": {"median": 3.5, "least": 2.0, "most": 5.0},
        "empty": {"median": 5.5, "least": 4.0, "most": 7.0},
        "first": {"median": 4.5, "least": 3.0, "most": 6.0},
    }


def _is_empty(directory: Path) -> bool:
    return not any(directory.iterdir())


def _of_server(served: Served) -> list[int]:
    return [served.pids["server"], served.pids["mongod"]]


def _runs(pid: int) -> bool:
    """A process that has ended has no command line, a zombie neither."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False
