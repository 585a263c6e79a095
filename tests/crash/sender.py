"""A partner's process: sends events through a spool, and says after each batch what was taken.

    python -m tests.crash.sender TARGET WRITER DIRECTORY EVENTS FIRST SEED

Its key is in ZAAZ_API_KEY. It never sends again what it has said was taken: of
that only the spool knows.
"""

import asyncio
import os
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from struct import Struct

from zaaz.credits.v1.usage_service_pb2 import UsageEvent
from zaaz_client import SpoolSettings, UsageStream, UsageStreamSettings, ZaazClient

MAX_BATCH_EVENTS = 60
PACE_SECONDS = 0.03
DONE = "done"
SETTINGS = UsageStreamSettings(
    max_buffered_events=400,
    linger_seconds=0.002,
    open_timeout_seconds=0.5,
    max_backoff_seconds=0.5,
)
_LENGTH = Struct("<I")


def write_events(path: Path, events: Iterable[UsageEvent]) -> None:
    """For `read_events`."""
    data = (event.SerializeToString() for event in events)
    path.write_bytes(b"".join(_LENGTH.pack(len(one)) + one for one in data))


def read_events(path: Path) -> list[UsageEvent]:
    data, place, events = path.read_bytes(), 0, []
    while place < len(data):
        (size,) = _LENGTH.unpack_from(data, place)
        place += _LENGTH.size
        events.append(UsageEvent.FromString(data[place : place + size]))
        place += size
    return events


async def send(stream: UsageStream, events: list[UsageEvent], taken: int, seed: int) -> None:
    """All from `taken` on, some together and some beside each other."""
    chance = random.Random(seed)
    while taken < len(events):
        batch = events[taken : taken + chance.randint(1, MAX_BATCH_EVENTS)]
        if chance.random() < 0.5:
            await stream.send_many(batch)
        else:
            await asyncio.gather(*map(stream.send, batch))
        taken += len(batch)
        sys.stdout.write(f"{taken}\n")
        sys.stdout.flush()
        await asyncio.sleep(PACE_SECONDS)
    await stream.flush()


async def main() -> None:
    target, writer_id, directory, file, first, seed = sys.argv[1:]
    events = read_events(Path(file))
    spool = SpoolSettings(directory=directory)
    async with (
        ZaazClient(target, os.environ["ZAAZ_API_KEY"]) as client,
        client.usage_stream(writer_id, settings=SETTINGS, spool=spool) as stream,
    ):
        await send(stream, events, int(first), int(seed))
    sys.stdout.write(DONE)


if __name__ == "__main__":
    asyncio.run(main())
