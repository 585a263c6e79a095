"""A mongod that is no replica set."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from server.mongo.binary import find_mongod
from tests.mongo.processes import eventually


@asynccontextmanager
async def lone_mongod(directory: Path) -> AsyncIterator[str]:
    """Its url."""
    socket = directory / "lone.sock"
    process = await asyncio.create_subprocess_exec(
        str(find_mongod()),
        *("--dbpath", str(directory), "--bind_ip", str(socket), "--nounixsocket"),
        stdout=asyncio.subprocess.DEVNULL,
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        await eventually(lambda: socket.exists() or process.returncode is not None)
        yield f"mongodb://{quote(str(socket), safe='')}"
    finally:
        process.kill()
        await process.wait()
