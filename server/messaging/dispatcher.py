"""Hands the outbox's messages to their consumers: at least once, each at its own pace."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from server.kernel.clock import Clock, system_clock
from server.messaging.consumers import Consumers
from server.messaging.loop import ConsumerLoop
from server.messaging.store import OutboxStore
from server.mongo.database import Database


class Dispatcher:
    """One loop per consumer, so that a slow one keeps no other waiting."""

    def __init__(
        self, database: Database, consumers: Consumers, clock: Clock = system_clock
    ) -> None:
        self._store = OutboxStore(database, clock)
        self._consumers = consumers
        self._clock = clock
        self._loops: tuple[ConsumerLoop, ...] | None = None

    def hand_over(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Dispatch these rows of `Outbox.document`, which have just been committed.

        They need not be looked for and claimed, which costs four commands a batch. From the
        event loop's thread.
        """
        for loop in self._loops or ():
            for row in rows:
                if row["topic"] in loop.topics:
                    loop.hand(row)

    def wake(self, topics: Collection[str]) -> None:
        """Look now: rows of these topics have been committed. From the event loop's thread."""
        for loop in self._loops or ():
            if not loop.topics.isdisjoint(topics):
                loop.woken.set()

    async def run(self) -> None:
        """Dispatch until cancelled. Survives the database going away.

        Cancelled, it marks what was handled and gives the rest back, so that
        the next process need not wait for leases to run out.
        """
        loops = self._begin()
        async with asyncio.TaskGroup() as tasks:
            for loop in loops:
                tasks.create_task(loop.run(), name=f"outbox-{loop.name}")
            if not loops:
                await asyncio.Event().wait()

    async def run_once(self) -> int:
        """One batch for each consumer; how many messages were taken.

        Raises what `run` survives: ConsumerUnavailable, DatabaseUnavailable,
        TransactionLost.
        """
        return sum([await loop.run_once() for loop in self._begin()])

    def _begin(self) -> tuple[ConsumerLoop, ...]:
        if self._loops is None:
            self._loops = tuple(
                ConsumerLoop(consumer, self._store, self._clock)
                for consumer in self._consumers.seal()
            )
        return self._loops
