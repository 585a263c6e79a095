"""Writing messages in the transaction of what they tell of."""

from collections.abc import Mapping
from typing import Any

from bson.datetime_ms import DatetimeMS

from server.kernel.clock import Clock, system_clock
from server.kernel.ids import new_id
from server.messaging.consumers import Consumers

OUTBOX = "outbox"
"""The collection that `Outbox.document`'s rows belong in."""


class Outbox:
    """Makes the rows; whoever owns the transaction inserts them and wakes the dispatcher after."""

    def __init__(self, consumers: Consumers, clock: Clock = system_clock) -> None:
        self._consumers = consumers
        self._clock = clock

    def document(
        self, topic: str, payload: Mapping[str, Any], key: str = ""
    ) -> dict[str, Any] | None:
        """The row to insert into OUTBOX; None when nobody takes the topic.

        `{_id, topic, key, payload, created_time, undone: [{consumer, due_time, attempts}]}`:
        it lists who has yet to handle it, and from when on.
        """
        names = self._consumers.names(topic)
        if not names:
            return None
        now = DatetimeMS(self._clock())
        return {
            "_id": new_id(),
            "topic": topic,
            "key": key,
            "payload": payload,
            "created_time": now,
            "undone": [{"consumer": name, "due_time": now, "attempts": 0} for name in names],
        }
