"""Looking at processes from outside, and waiting with a bound."""

import asyncio
import os
import re
import select
import signal
from collections.abc import Callable
from pathlib import Path

PATIENCE_SECONDS = 20.0
POLL_SECONDS = 0.01
_LISTEN = "0A"


def kill(pid: int) -> None:
    """SIGKILL, and back when the process is gone."""
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert _exited(handle)
    finally:
        os.close(handle)


def goes_away(pid: int) -> bool:
    """Whether the process ends within the patience of a test."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return _exited(handle)
    finally:
        os.close(handle)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def listening_tcp_ports(pid: int) -> set[int]:
    """The TCP ports that this very process listens on, by its open files."""
    links = (_link(file) for file in Path(f"/proc/{pid}/fd").iterdir())
    inodes = {found[1] for link in links if (found := re.fullmatch(r"socket:\[(\d+)\]", link))}
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and fields[9] in inodes:
                ports.add(int(fields[1].rsplit(":", 1)[1], 16))
    return ports


async def eventually(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if happened():
                return
            await asyncio.sleep(POLL_SECONDS)


def _exited(handle: int) -> bool:
    return bool(select.select([handle], [], [], PATIENCE_SECONDS)[0])


def _link(file: Path) -> str:
    try:
        return str(file.readlink())
    except FileNotFoundError:
        return ""
