"""Starts are timed to SERVING, and cold ones begin with kill -9 of server and mongod."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
from hypothesis import given
from hypothesis import strategies as st
from zaaz.wallet.v1 import wallet_service_pb2
from zaaz.wallet.v1.wallet_service_pb2_grpc import WalletServiceStub

from bench import starts
from bench.processes import SERVER_DATABASE, Served, serving
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
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
    assert [await process.wait() for process in processes] == [-9, -9]


@given(st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=7))
def test_seconds_are_named(seconds: list[float]) -> None:
    said = starts.named(seconds)
    assert list(said) == ["median", "least", "most"]
    assert said["least"] <= said["median"] <= said["most"]


async def test_cold_starts_kill_both_and_find_the_ledger_again(tmp_path: Path) -> None:
    worked: list[Served] = []
    users: list[str] = []

    async def work(served: Served) -> None:
        worked.append(served)
        async with grpc.aio.insecure_channel(served.target) as channel:
            request = wallet_service_pb2.GetWalletRequest(user_id=users[0])
            stub: Any = WalletServiceStub(channel)
            await stub.GetWallet(request, metadata=served.metadata)

    async with (
        serving(tmp_path) as served,
        grpc.aio.insecure_channel(served.target) as channel,
    ):
        users += await make_wallets(channel, served, 1)
        bench = Bench(served, channel, tmp_path, Plan(1, 1.0))
        said = await starts.cold_starts(bench, SERVER_DATABASE, work, 1)
    assert [*said] == ["grown", "empty", "first"]
    assert all(0 < each["least"] <= each["most"] for each in said.values())
    (again,) = worked
    assert again.pids["mongod"] != served.pids["mongod"]
    assert not any(_runs(pid) for each in (served, again) for pid in _of_server(each))


def _of_server(served: Served) -> list[int]:
    return [served.pids["server"], served.pids["mongod"]]


def _runs(pid: int) -> bool:
    """A process that has ended has no command line, a zombie neither."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False
