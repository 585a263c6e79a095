"""The bus: messages for whoever has a queue, here or in another process.

Shaped for RabbitMQ: `publish` returns when the broker has confirmed, a queue
takes topics, and how `handle` leaves is its ack or nack (see consumers.py:
what cannot be handled ends in the queue's dead letters). An adapter encodes
`body` as BSON, so ids and times arrive as what they were.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from server.messaging.consumers import Handle


class Bus(Protocol):
    """What domains know of messaging."""

    async def publish(self, topic: str, key: str, body: Mapping[str, Any]) -> None:
        """Return once the message will be delivered, even through a crash.

        Raises DatabaseUnavailable (or the adapter's like) when that cannot be promised.
        """
        ...

    def subscribe(self, queue: str, topics: Sequence[str], handle: Handle) -> None:
        """Give `queue`'s messages to `handle`, at least once. Before dispatching begins."""
        ...
