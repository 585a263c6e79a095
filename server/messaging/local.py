"""The bus without a broker: the outbox is the queue, consumers live in this process."""

from collections.abc import Mapping, Sequence
from typing import Any

from server.messaging.consumers import Consumers, Handle
from server.messaging.dispatcher import Dispatcher
from server.messaging.outbox import OUTBOX, Outbox
from server.mongo.database import Database
from server.mongo.errors import reachable


class LocalBus:
    """A Bus on the outbox of this process's database."""

    def __init__(
        self, database: Database, consumers: Consumers, outbox: Outbox, dispatcher: Dispatcher
    ) -> None:
        self._rows = database.collection(OUTBOX)
        self._consumers = consumers
        self._outbox = outbox
        self._dispatcher = dispatcher

    async def publish(self, topic: str, key: str, body: Mapping[str, Any]) -> None:
        """Store the message (majority, journaled), then wake whoever takes it."""
        row = self._outbox.document(topic, body, key)
        if row is None:
            return
        with reachable():
            await self._rows.insert_one(row)
        self._dispatcher.wake((topic,))

    def subscribe(self, queue: str, topics: Sequence[str], handle: Handle) -> None:
        """See `Consumers.add`."""
        self._consumers.add(queue, topics, handle)
