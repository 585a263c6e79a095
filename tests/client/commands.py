"""Runs `zaaz` as a process of its own."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import NamedTuple, Protocol

from tests.ledger.calls import soon

ZAAZ = Path(sys.executable).with_name("zaaz")
WIDE = {"COLUMNS": "200", "TERM": "dumb"}


class Server(Protocol):
    """Whom to ask, and how."""

    @property
    def target(self) -> str: ...

    @property
    def api_key(self) -> str: ...


class Ended(NamedTuple):
    """A command that is over."""

    code: int | None
    out: str
    err: str


async def zaaz(served: Server, *words: str, answer: str = "", **environment: str) -> Ended:
    """What became of `zaaz ...`, asked of this server."""
    asking = {"ZAAZ_TARGET": served.target, "ZAAZ_API_KEY": served.api_key}
    env = {**os.environ, **WIDE, **asking, **environment}
    process = await asyncio.create_subprocess_exec(
        ZAAZ, *words, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=env
    )
    out, err = await soon(process.communicate(answer.encode()))
    assert "Traceback" not in err.decode()
    return Ended(process.returncode, out.decode(), err.decode())
