"""Writing messages in the transaction of what they tell of."""

from collections.abc import Mapping
from typing import Any

from bson.datetime_ms import DatetimeMS

from server.kernel.clock import Clock, system_clock
from server.kernel.ids import new_id
from server.messaging.consumers import Consumers

OUTBOX = "outbox"
"""The collection that `Outbox.document`'s rows belong in."""

HANDOVER_MS = 2_000
"""After so long, a row that its writer's process has not handled is anybody's: it has died."""


class Outbox:
    """Makes the rows; whoever owns the transaction inserts them and wakes the dispatcher after."""

    def __init__(self, consumers: Consumers, clock: Clock = system_clock) -> None:
        self._consumers = consumers
        self._clock = clock

    def document(
        self, topic: str, payload: Mapping[str, Any], key: str = "", *, handed_over: bool = False
    ) -> dict[str, Any] | None:
        """The row to insert into OUTBOX; None when nobody takes the topic.

        `{_id, topic, key, payload, created_time, undone: [{consumer, due_time, attempts}]}`:
        it lists who has yet to handle it, and from when on. One that its writer hands to
        the dispatcher of its own process is left to it for HANDOVER_MS.
        """
        names = self._consumers.names(topic)
        if not names:
            return None
        now_ms = self._clock()
        due = DatetimeMS(now_ms + HANDOVER_MS if handed_over else now_ms)
        return {
            "_id": new_id(),
            "topic": topic,
            "key": key,
            "payload": payload,
            "created_time": DatetimeMS(now_ms),
            "undone": [{"consumer": name, "due_time": due, "attempts": 0} for name in names],
        }
