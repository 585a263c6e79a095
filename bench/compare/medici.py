"""medici under Node: installing it, and telling its process what to do.

Callers and book are one process, with no network between them: that favours it.
"""

import asyncio
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from bson import ObjectId
from pymongo import AsyncMongoClient

from bench.compare.contestants import Books, Load, Outcome
from bench.consume import CALLERS, CONSUMED_MICROS
from bench.processes import BenchError
from bench.setting import Bench, tell

FOLDER = Path(__file__).parent
DATABASE = "medici"
SNAPSHOT_SECONDS = 0
"""None are taken. With the default, a balance adds up what the whole book has had in a day."""
INSTALL_TIMEOUT_SECONDS = 300
COMPLAINT_CHARACTERS = 300
LINE_BYTES = 64 * 1024 * 1024
STOP_TIMEOUT_SECONDS = 30


class LeftOutError(Exception):
    """Why medici cannot be had here."""


class Medici:
    """The book, through medici.js."""

    name = "medici, in its callers' process"

    def __init__(self, process: asyncio.subprocess.Process, pids: Mapping[str, int], rows: Any):
        self.pids = pids
        self._process = process
        self._rows = rows

    async def fund(self, count: int, micros: int) -> list[str]:
        users = [str(ObjectId()) for _ in range(count)]
        await self.ask({"fund": users, "micros": micros})
        return users

    async def debit(self, load: Load) -> Outcome:
        asked = {"users": list(load.users), "seconds": load.seconds, "most": load.most}
        said = await self.ask({**asked, "micros": CONSUMED_MICROS, "callers": CALLERS})
        return Outcome(
            seconds=said["seconds"],
            refused=said["refused"],
            retries=said["retries"],
            errors=Counter(said["errors"]),
            latencies=[each / 1_000 for each in said["latencies_ms"]],
        )

    async def books(self, users: Sequence[str]) -> Books:
        accounts = [f"Accounts:{user_id}" for user_id in users]
        balance = {"$sum": {"$subtract": ["$credit", "$debit"]}}
        debits = {"$sum": {"$cond": [{"$gt": ["$debit", 0]}, 1, 0]}}
        cursor = await self._rows.aggregate(
            [
                {"$match": {"accounts": {"$in": accounts}}},
                {"$group": {"_id": "$accounts", "balance": balance, "debits": debits}},
            ]
        )
        found = await cursor.to_list()
        return Books([int(row["balance"]) for row in found], sum(row["debits"] for row in found))

    async def ask(self, request: Mapping[str, Any] | None = None) -> Any:
        """Its next line, in answer to this one if there is one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if request is not None:
            self._process.stdin.write(orjson.dumps(request) + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise BenchError("medici.js ended")
        return orjson.loads(line)


@asynccontextmanager
async def medici(bench: Bench) -> AsyncIterator[Medici]:
    """medici on the server's mongod. LeftOutError where it cannot be had."""
    node = await asyncio.to_thread(installed)
    arguments = (bench.served.mongo_url, DATABASE, str(SNAPSHOT_SECONDS))
    process = await asyncio.create_subprocess_exec(
        *(node, FOLDER / "medici.js", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
    )
    try:
        async with AsyncMongoClient[dict[str, Any]](bench.served.mongo_url) as client:
            rows = client[DATABASE]["medici_transactions"]
            mongod = bench.served.pids["mongod"]
            contestant = Medici(process, {"mongod": mongod, "medici": process.pid}, rows)
            await contestant.ask()
            yield contestant
    finally:
        await _end(process)


def installed() -> str:
    """node, with the pinned packages beside medici.js. LeftOutError."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise LeftOutError("it needs Node 20 (Debian: apt-get install nodejs npm)")
    stamp, lock = FOLDER / "node_modules" / ".package-lock.json", FOLDER / "package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
        tell("compare: npm ci")
        _install(npm)
        stamp.touch()
    return node


def _install(npm: str) -> None:
    asked = [npm, "ci", "--ignore-scripts", "--loglevel=error"]
    try:
        done = subprocess.run(
            asked, cwd=FOLDER, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise LeftOutError(f"npm ci took more than {INSTALL_TIMEOUT_SECONDS} s") from error
    if done.returncode:
        # Of many lines, for one line of a table.
        said = " ".join(done.stderr.split())[-COMPLAINT_CHARACTERS:]
        raise LeftOutError(f"npm ci failed: {said}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """It ends with its input."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
