"""Realtime in process: order, bounds, coalescing, overflow."""

from __future__ import annotations

import asyncio

import pytest
from bson import ObjectId

from server.messaging.consumers import Consumers
from server.messaging.dispatcher import Dispatcher
from server.messaging.local import LocalBus
from server.messaging.outbox import Outbox
from server.messaging.store import COLLECTIONS
from server.mongo.database import Database
from server.realtime import local
from server.realtime.local import LocalRealtime
from server.realtime.port import Message, Overflow, Realtime, Subscription
from server.realtime.wallet_changes import CONSUMER, WalletChanges, wallet_channel

BOUND_SECONDS = 10


async def read(subscription: Subscription, count: int) -> list[Message]:
    async with asyncio.timeout(BOUND_SECONDS):
        return [await anext(subscription) for _ in range(count)]


async def nothing_waits(subscription: Subscription) -> bool:
    """Whether a read would wait."""
    reading = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    waits = not reading.done()
    reading.cancel()
    await asyncio.wait([reading])
    return waits


def event(sequence: int) -> Message:
    return {"sequence": sequence}


def state(sequence: int, key: str = "wallet") -> Message:
    return {"sequence": sequence, "key": key}


@pytest.fixture
def realtime() -> Realtime:
    return LocalRealtime(max_waiting_messages=3)


class TestPublish:
    async def test_reaches_the_channel_s_subscribers_in_order(self, realtime: Realtime) -> None:
        one, two, other = (realtime.subscribe(channel) for channel in ("a", "a", "b"))
        for sequence in range(3):
            await realtime.publish("a", event(sequence))
        assert await read(one, 3) == await read(two, 3) == [event(n) for n in range(3)]
        assert await nothing_waits(other)

    async def test_wakes_a_reader_that_waits(self, realtime: Realtime) -> None:
        subscription = realtime.subscribe("a")
        reading = asyncio.create_task(read(subscription, 2))
        await asyncio.sleep(0)
        await realtime.publish("a", event(1))
        await realtime.publish("a", event(2))
        assert await reading == [event(1), event(2)]

    async def test_before_subscribing_is_not_heard(self, realtime: Realtime) -> None:
        await realtime.publish("a", event(1))
        assert await nothing_waits(realtime.subscribe("a"))

    async def test_a_cancelled_read_loses_nothing(self, realtime: Realtime) -> None:
        subscription = realtime.subscribe("a")
        assert await nothing_waits(subscription)
        await realtime.publish("a", event(1))
        assert await read(subscription, 1) == [event(1)]

    async def test_a_thousand_subscribers(self, realtime: Realtime) -> None:
        subscriptions = [realtime.subscribe("a") for _ in range(1_000)]
        readers = [asyncio.create_task(read(each, 1)) for each in subscriptions]
        await asyncio.sleep(0)
        await realtime.publish("a", event(1))
        async with asyncio.timeout(BOUND_SECONDS):
            assert await asyncio.gather(*readers) == [[event(1)]] * 1_000


class TestCoalescing:
    async def test_the_latest_state_of_a_key_replaces_what_waits(self, realtime: Realtime) -> None:
        subscription = realtime.subscribe("a")
        for sequence in range(100):
            await realtime.publish("a", state(sequence))
        assert await read(subscription, 1) == [state(99)]
        assert await nothing_waits(subscription)

    async def test_keys_do_not_replace_each_other_and_sequences_rise(
        self, realtime: Realtime
    ) -> None:
        subscription = realtime.subscribe("a")
        messages = [state(1, "x"), state(2, "y"), event(3), state(4, "x")]
        for message in messages:
            await realtime.publish("a", message)
        assert await read(subscription, 3) == [state(2, "y"), event(3), state(4, "x")]

    async def test_a_state_that_comes_late_is_dropped(self, realtime: Realtime) -> None:
        subscription = realtime.subscribe("a")
        await realtime.publish("a", state(5))
        await realtime.publish("a", state(4))
        assert await read(subscription, 1) == [state(5)]
        await realtime.publish("a", state(5))
        assert await nothing_waits(subscription)
        await realtime.publish("a", state(1, "another"))
        assert await read(subscription, 1) == [state(1, "another")]

    async def test_events_are_never_dropped_as_late(self, realtime: Realtime) -> None:
        subscription = realtime.subscribe("a")
        await realtime.publish("a", event(2))
        await realtime.publish("a", event(1))
        assert await read(subscription, 2) == [event(2), event(1)]

    async def test_what_is_known_of_keys_is_bounded(
        self, realtime: Realtime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(local, "MAX_KNOWN_KEYS", 2)
        subscription = realtime.subscribe("a")
        for key in "xyz":
            await realtime.publish("a", state(5, key))
        await read(subscription, 3)
        await realtime.publish("a", state(4, "x"))
        await realtime.publish("a", state(4, "z"))
        assert await read(subscription, 1) == [state(4, "x")]
        assert await nothing_waits(subscription)


class TestOverflow:
    async def test_ends_the_subscription_with_the_last_sequence_delivered(
        self, realtime: Realtime
    ) -> None:
        slow, quick = realtime.subscribe("a"), realtime.subscribe("a")
        await realtime.publish("a", event(1))
        await read(slow, 1)
        for sequence in range(2, 6):
            await read(quick, 1)
            await realtime.publish("a", event(sequence))
        with pytest.raises(Overflow) as overflow:
            await anext(slow)
        assert overflow.value.last_sequence == 1
        assert overflow.value.channel == "a"
        with pytest.raises(StopAsyncIteration):
            await anext(slow)
        assert await read(quick, 1) == [event(5)]

    async def test_before_anything_was_delivered(self, realtime: Realtime) -> None:
        subscription = realtime.subscribe("a")
        for sequence in range(4):
            await realtime.publish("a", event(sequence))
        with pytest.raises(Overflow) as overflow:
            await anext(subscription)
        assert overflow.value.last_sequence is None

    async def test_a_full_queue_still_takes_a_newer_state(self, realtime: Realtime) -> None:
        subscription = realtime.subscribe("a")
        for message in [state(1, "x"), state(2, "y"), state(3, "z"), state(4, "x")]:
            await realtime.publish("a", message)
        assert await read(subscription, 3) == [state(2, "y"), state(3, "z"), state(4, "x")]


class TestClose:
    async def test_ends_a_reader_that_waits(self, realtime: Realtime) -> None:
        subscription = realtime.subscribe("a")

        async def listen() -> list[Message]:
            return [message async for message in subscription]

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
        subscription.close()
        subscription.close()
        async with asyncio.timeout(BOUND_SECONDS):
            assert await listening == []

    async def test_drops_what_waits(self, realtime: Realtime) -> None:
        subscription = realtime.subscribe("a")
        await realtime.publish("a", event(1))
        subscription.close()
        await realtime.publish("a", event(2))
        with pytest.raises(StopAsyncIteration):
            await anext(subscription)

    async def test_leaves_the_channel_to_the_others(self, realtime: Realtime) -> None:
        first, second = realtime.subscribe("a"), realtime.subscribe("a")
        first.close()
        await realtime.publish("a", event(1))
        assert await read(second, 1) == [event(1)]
        second.close()
        third = realtime.subscribe("a")
        # An old subscription that closes again does not take the new channel down.
        second.close()
        await realtime.publish("a", event(2))
        assert await read(third, 1) == [event(2)]


class TestListen:
    async def test_is_called_with_each_message_until_it_is_given_up(
        self, realtime: Realtime
    ) -> None:
        heard: list[Message] = []
        stop = realtime.listen("a", heard.append)
        subscription = realtime.subscribe("a")
        for sequence in range(3):
            await realtime.publish("a", event(sequence))
        await realtime.publish("b", event(9))
        stop()
        stop()
        assert await read(subscription, 3) == heard == [event(n) for n in range(3)]
        await realtime.publish("a", event(3))
        assert len(heard) == 3
        # Whoever else is there goes on.
        assert await read(subscription, 1) == [event(3)]

    async def test_hears_no_state_that_comes_late(self, realtime: Realtime) -> None:
        heard: list[Message] = []
        realtime.listen("a", heard.append)
        for sequence in (2, 1, 3):
            await realtime.publish("a", state(sequence))
        assert heard == [state(2), state(3)]


class TestWalletChanges:
    async def test_a_committed_row_reaches_who_watches_the_wallet(self, database: Database) -> None:
        await database.prepare(COLLECTIONS)
        realtime = LocalRealtime()
        consumers = Consumers()
        dispatcher = Dispatcher(database, consumers)
        bus = LocalBus(database, consumers, Outbox(consumers), dispatcher)
        bus.subscribe(CONSUMER, ["wallet.changed"], WalletChanges(realtime).handle)
        mine, other = ObjectId(), ObjectId()
        watching = realtime.subscribe(wallet_channel(mine))
        newer = [{"user_id": mine, "sequence": 8, "credits_micros": 5}]
        older = [
            {"user_id": mine, "sequence": 7, "credits_micros": 9},
            {"user_id": other, "sequence": 1, "credits_micros": 1},
        ]
        await bus.publish("wallet.changed", "", {"wallets": newer})
        await dispatcher.run_once()
        await bus.publish("wallet.changed", "", {"wallets": older})
        await dispatcher.run_once()
        assert await read(watching, 1) == [newer[0] | {"key": "wallet"}]
        assert await nothing_waits(watching)
