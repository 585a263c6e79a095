from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pymongo.read_concern import ReadConcern

from server.messaging.consumers import Consumers, Handle, Message
from server.messaging.dispatcher import Dispatcher
from server.messaging.outbox import OUTBOX, Outbox
from server.messaging.store import COLLECTIONS
from server.mongo.database import Database
from tests.serving import ManualClock


class House:
    """A process's share of messaging: several of them on one database are several processes."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.database = database
        self.clock = clock
        self.consumers = Consumers()
        self.outbox = Outbox(self.consumers, clock)
        self.dispatcher = Dispatcher(database, self.consumers, clock)

    def add(self, handle: Handle, name: str = "reader", topic: str = "news") -> None:
        self.consumers.add(name, [topic], handle)

    async def write(self, *payloads: Mapping[str, Any]) -> None:
        """Commit one row for each payload, in one transaction."""
        async with self.database.transaction() as tx:
            for payload in payloads:
                row = self.outbox.document("news", payload)
                assert row is not None
                await tx.insert(OUTBOX, [row])

    async def commit_for_handover(self, *numbers: int) -> list[dict[str, Any]]:
        """Commit a row for each number, to be handed over; the rows."""
        made = [self.outbox.document("news", {"n": n}, handed_over=True) for n in numbers]
        rows = [row for row in made if row is not None]
        async with self.database.transaction() as tx:
            await tx.insert(OUTBOX, rows)
        return rows

    async def rows(self) -> list[dict[str, Any]]:
        """What is left, marks included that a majority has yet to see."""
        outbox = self.database.collection(OUTBOX)
        return await outbox.with_options(read_concern=ReadConcern("local")).find({}).to_list()


class Reader:
    """Remembers the numbers that it was given; fails as it is told."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.failures: dict[int, Exception] = {}

    async def handle(self, message: Message) -> None:
        number = message.payload["n"]
        self.seen.append(number)
        if number in self.failures:
            raise self.failures[number]


@pytest.fixture
def clock(manual_clock: ManualClock) -> ManualClock:
    return manual_clock


@pytest.fixture
async def house(database: Database, clock: ManualClock) -> House:
    await database.prepare(COLLECTIONS)
    return House(database, clock)


@pytest.fixture
def reader(house: House) -> Reader:
    reader = Reader()
    house.add(reader.handle)
    return reader
