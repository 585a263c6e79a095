"""Hands the outbox's messages to their consumers: at least once, each at its own pace."""

import asyncio

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
        self._stopped = asyncio.Event()
        self._loops: tuple[ConsumerLoop, ...] | None = None

    def wake(self) -> None:
        """Look now: rows have been committed. From the event loop's thread."""
        for loop in self._loops or ():
            loop.woken.set()

    def stop(self) -> None:
        """Let `run` return: messages in hand are finished, the rest of their batch given back."""
        self._stopped.set()
        self.wake()

    async def run(self) -> None:
        """Dispatch until `stop`, or until cancelled. Survives the database going away."""
        async with asyncio.TaskGroup() as tasks:
            for loop in self._begin():
                tasks.create_task(loop.run(), name=f"outbox-{loop.name}")

    async def run_once(self) -> int:
        """One batch for each consumer; how many messages were taken.

        Raises what `run` survives: ConsumerUnavailable, DatabaseUnavailable,
        TransactionLost.
        """
        return sum([await loop.run_once() for loop in self._begin()])

    def _begin(self) -> tuple[ConsumerLoop, ...]:
        if self._loops is None:
            self._loops = tuple(
                ConsumerLoop(consumer, self._store, self._clock, self._stopped)
                for consumer in self._consumers.seal()
            )
        return self._loops
