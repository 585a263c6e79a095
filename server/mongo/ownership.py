"""One server process per data directory, and none of its predecessors' mongods in it."""

import asyncio
import contextlib
import fcntl
import os
import signal
from pathlib import Path
from typing import IO

from server.mongo.errors import EmbeddedMongodFailed
from server.mongo.layout import Layout, unusable
from server.mongo.process import STOP_TIMEOUT_SECONDS


def own(layout: Layout) -> IO[bytes]:
    """Take the data directory for this process until the file that is returned is closed.

    EmbeddedMongodFailed when a living process has it. A lock, not a pid file:
    the kernel drops it however its owner dies.
    """
    try:
        file = layout.owner.open("ab")
    except OSError as error:
        raise unusable(layout.data_dir, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise EmbeddedMongodFailed(
            f"another server runs on {layout.data_dir}: stop it, or set another ZAAZ_DATA_DIR"
        ) from None
    return file


async def end_orphan(layout: Layout) -> bool:
    """End the mongod that a killed server left on the data directory. Whether there was one.

    Call it as the owner: whatever still runs there is then nobody's. It is
    ended rather than adopted, as it is mostly on its way out already (the
    kernel has told it) and a child of our own can be waited for.
    """
    pid = _running_on(layout)
    if pid is None:
        return False
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # Between reading and opening, the number may have gone to someone else.
        if _running_on(layout) == pid:
            await _end(handle)
    finally:
        os.close(handle)
    return True


async def _end(handle: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
        if await _exited(handle):
            return
    raise EmbeddedMongodFailed("an orphaned mongod does not end, not even by SIGKILL")


async def _exited(handle: int) -> bool:
    loop = asyncio.get_running_loop()
    exited = asyncio.Event()
    loop.add_reader(handle, exited.set)
    try:
        await asyncio.wait_for(exited.wait(), STOP_TIMEOUT_SECONDS)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(handle)
    return True


def _running_on(layout: Layout) -> int | None:
    """The pid in mongod's own lock file, if it is a mongod on this directory."""
    try:
        pid = int((layout.database / "mongod.lock").read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(layout.database) in arguments else None
