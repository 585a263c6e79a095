"""The bus without a broker keeps the promises of the port."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bson import ObjectId

from server.messaging.bus import Bus
from server.messaging.consumers import Message, Rejected
from server.messaging.local import LocalBus
from server.messaging.store import DEAD_LETTERS

if TYPE_CHECKING:
    from tests.messaging.conftest import House


@pytest.fixture
def bus(house: House) -> Bus:
    return LocalBus(house.database, house.consumers, house.outbox, house.dispatcher)


async def test_every_queue_that_takes_the_topic_gets_the_message(bus: Bus, house: House) -> None:
    got: list[tuple[str, Message]] = []

    def queue(name: str, *topics: str) -> None:
        async def handle(message: Message) -> None:
            got.append((name, message))

        bus.subscribe(name, topics, handle)

    queue("mail", "order.paid", "order.sent")
    queue("stats", "order.paid")
    user_id = ObjectId()
    await bus.publish("order.paid", str(user_id), {"user_id": user_id, "micros": 2**60})
    await bus.publish("order.sent", "", {})
    await bus.publish("order.lost", "", {})
    await house.dispatcher.run_once()
    assert sorted((name, message.topic) for name, message in got) == [
        ("mail", "order.paid"),
        ("mail", "order.sent"),
        ("stats", "order.paid"),
    ]
    paid = next(message for _, message in got if message.topic == "order.paid")
    assert paid.payload == {"user_id": user_id, "micros": 2**60}
    assert paid.key == str(user_id)


async def test_what_cannot_be_handled_is_kept_with_its_reason(bus: Bus, house: House) -> None:
    async def handle(_: Message) -> None:
        raise Rejected("not mine")

    bus.subscribe("mail", ["order.paid"], handle)
    await bus.publish("order.paid", "k", {"n": 1})
    await house.dispatcher.run_once()
    [dead] = await house.database.collection(DEAD_LETTERS).find({}).to_list()
    assert (dead["consumer"], dead["key"], dead["reason"]) == ("mail", "k", "not mine")
