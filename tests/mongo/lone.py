"""A mongod that is no replica set."""

import asyncio
from pathlib import Path
from urllib.parse import quote

from tests.mongo.processes import eventually


async def lone_mongod(program: Path, directory: Path) -> tuple[asyncio.subprocess.Process, str]:
    socket = directory / "lone.sock"
    process = await asyncio.create_subprocess_exec(
        str(program),
        *("--dbpath", str(directory), "--bind_ip", str(socket), "--nounixsocket"),
        stdout=asyncio.subprocess.DEVNULL,
        stdin=asyncio.subprocess.DEVNULL,
    )
    await eventually(lambda: socket.exists() or process.returncode is not None)
    return process, f"mongodb://{quote(str(socket), safe='')}"
