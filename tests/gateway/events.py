"""Server-sent events as they are on the wire, read as the HTML standard says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import orjson

PATIENCE_SECONDS = 30.0


@dataclass
class Event:
    """One block between two empty lines."""

    id: str | None = None
    name: str = "message"
    data: str = ""
    retry_ms: int = 0
    comments: list[str] = field(default_factory=list)

    @property
    def json(self) -> Any:
        return orjson.loads(self.data)


class Events:
    """An open stream."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self.last_id = ""
        self._lines = answer.aiter_lines()

    async def block(self) -> Event | None:
        """The next block, whatever is in it; None at the end."""
        event, is_empty = Event(), True
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for line in self._lines:
                if not line:
                    if not is_empty:
                        return event
                    continue
                is_empty = False
                self._take(event, line)
        return None

    async def next(self) -> Event:
        """The next block with data."""
        while True:
            event = await self.block()
            assert event is not None, "the stream has ended"
            if event.data:
                return event

    async def ended(self) -> bool:
        """Whether nothing but comments comes before the end."""
        while (event := await self.block()) is not None:
            if event.data:
                return False
        return True

    def _take(self, event: Event, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            event.comments.append(value)
        elif name == "id":
            event.id = self.last_id = value
        elif name == "event":
            event.name = value
        elif name == "data":
            assert not event.data
            event.data = value
        else:
            assert name == "retry"
            event.retry_ms = int(value)


@asynccontextmanager
async def opened(
    client: httpx2.AsyncClient, path: str, last_id: str | None = None, **headers: str
) -> AsyncIterator[Events]:
    """The stream at `path`, opened as EventSource does."""
    if last_id is not None:
        headers["last-event-id"] = last_id
    given = {"accept": "text/event-stream", "cache-control": "no-store", **headers}
    async with client.stream("GET", path, headers=given) as answer:
        if answer.status_code != 200:
            await answer.aread()
        else:
            assert answer.headers["content-type"] == "text/event-stream"
        events = Events(answer)
        yield events
