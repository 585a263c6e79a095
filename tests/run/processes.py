"""What runs on this machine: finding mongods by their directory, and waiting for an end."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

END_SECONDS = 20.0
"""Bound on waiting for a process to end."""

_LOOK_SECONDS = 0.002


def mongods(data_dir: Path) -> list[int]:
    """The pids of all mongods (or of what is about to become one) on this data directory."""
    wanted = os.fsencode(data_dir.resolve() / "mongo")
    return [pid for pid in _pids() if any(word.startswith(wanted) for word in _arguments(pid))]


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _arguments(pid: int) -> list[bytes]:
    """Its command line; empty for one that has gone, a zombie too."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


async def ended(pid: int, within_seconds: float = END_SECONDS) -> None:
    """Returns once the process has ended; TimeoutError."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, over.set)
    try:
        await asyncio.wait_for(over.wait(), within_seconds)
    except TimeoutError:
        raise TimeoutError(f"process {pid} runs on: {_arguments(pid)}") from None
    finally:
        loop.remove_reader(handle)
        os.close(handle)


async def until(holds: Callable[[], object], within_seconds: float) -> None:
    """Returns once `holds()`, looked at again and again; TimeoutError."""
    async with asyncio.timeout(within_seconds):
        while True:
            if holds():
                return
            await asyncio.sleep(_LOOK_SECONDS)
