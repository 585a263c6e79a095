"""A process that runs an embedded mongod, to be killed: prints its mongod's pid, and its url."""

import asyncio
import sys
from pathlib import Path

from server.mongo.embedded import EmbeddedMongod


async def main() -> None:
    mongod = EmbeddedMongod(Path(sys.argv[1]))
    url = await mongod.start()
    sys.stdout.write(f"{mongod.pid} {url}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
