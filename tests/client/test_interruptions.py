"""Ctrl-C at any place, a question answered with no, and one that nobody answers."""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

from tests.client.commands import WIDE, ZAAZ
from tests.client.processes import seen
from tests.ledger.calls import soon
from tests.serving import Served, new_user

INTERRUPTED = 130


async def begun(served: Served, *words: str, stdin: int = PIPE) -> Process:
    asking = {"ZAAZ_TARGET": served.target, "ZAAZ_API_KEY": served.api_key}
    env = {**os.environ, **WIDE, **asking}
    return await asyncio.create_subprocess_exec(
        ZAAZ, *words, stdin=stdin, stdout=PIPE, stderr=PIPE, env=env
    )


async def asked(served: Served, stdin: int = PIPE) -> Process:
    """A command that has put a question."""
    process = await begun(served, "usage", "rejected", "discard", new_user(), stdin=stdin)
    assert process.stdout is not None
    await soon(process.stdout.readuntil(b"[y/N]: "))
    return process


async def interrupt(process: Process) -> None:
    """Ctrl-C once it waits: just before it began to, Python would hear of it only afterwards."""

    async def waits() -> bool:
        return is_asleep(process.pid)

    await seen(waits)
    process.send_signal(signal.SIGINT)


def is_asleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("S")


async def ended(process: Process, answer: bytes | None = None) -> tuple[int | None, str]:
    """Exit code and stderr."""
    _, err = await soon(process.communicate(answer))
    return process.returncode, err.decode()


class TestAQuestion:
    async def test_that_is_interrupted(self, served: Served) -> None:
        process = await asked(served)
        await interrupt(process)
        assert await ended(process) == (INTERRUPTED, "\nError: Interrupted.\n")

    async def test_that_is_answered_with_no(self, served: Served) -> None:
        process = await asked(served)
        told = "Error: Not confirmed: nothing was changed.\n"
        assert await ended(process, b"n\n") == (1, told)

    async def test_that_nobody_answers(self, served: Served) -> None:
        process = await asked(served, stdin=DEVNULL)
        told = "\nError: Not confirmed: nothing was changed.\n"
        assert await ended(process) == (1, told)


async def test_work_without_a_server(served: Served, tmp_path: Path) -> None:
    statement = tmp_path / "statement.csv"
    os.mkfifo(statement)
    process = await begun(served, "statement", "verify", str(statement))
    writing = asyncio.to_thread(statement.open, "wb")
    with await soon(writing):  # opened: it reads
        await interrupt(process)
        assert await ended(process) == (INTERRUPTED, "\nError: Interrupted.\n")
