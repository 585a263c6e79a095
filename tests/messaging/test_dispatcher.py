"""Delivery: at least once, whatever fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from server.messaging import loop
from server.messaging.consumers import ConsumerUnavailable, Message, Rejected
from server.messaging.loop import BATCH_SIZE, FIRST_RETRY_MS, MAX_ATTEMPTS, MAX_RETRY_MS
from server.messaging.outbox import HANDOVER_MS, OUTBOX
from server.messaging.store import COLLECTIONS, DEAD_LETTERS, LEASE_MS
from server.mongo.client import connect
from server.mongo.database import Database
from server.mongo.embedded import EmbeddedMongod
from server.mongo.errors import DatabaseUnavailable
from tests.conftest import MongoClient
from tests.serving import ManualClock

if TYPE_CHECKING:
    from tests.messaging.conftest import House, Reader

BOUND_SECONDS = 20
AN_HOUR_MS = 3_600_000


async def within_bound(awaitable: Awaitable[object]) -> None:
    async with asyncio.timeout(BOUND_SECONDS):
        await awaitable


async def drain(house: House) -> None:
    """Run until a pass finds nothing due."""
    while await house.dispatcher.run_once():
        pass


async def dead_letters(house: House) -> list[dict[str, Any]]:
    return await house.database.collection(DEAD_LETTERS).find({}).to_list()


class TestDelivery:
    async def test_each_message_once_to_each_consumer(self, house: House, reader: Reader) -> None:
        archived: list[Message] = []

        async def archive(message: Message) -> None:
            archived.append(message)

        house.add(archive, name="archive")
        await house.write({"n": 1}, {"n": 2})
        await drain(house)
        assert sorted(reader.seen) == [1, 2]
        assert sorted(message.payload["n"] for message in archived) == [1, 2]
        assert {message.created_time for message in archived} == {house.clock.now_ms}
        assert await house.rows() == []

    async def test_more_than_a_batch(self, house: House, reader: Reader) -> None:
        count = BATCH_SIZE * 3 + 1
        await house.write(*({"n": number} for number in range(count)))
        await drain(house)
        assert sorted(reader.seen) == list(range(count))
        assert await house.rows() == []

    async def test_transactions_that_commit_out_of_order(
        self, house: House, reader: Reader
    ) -> None:
        early = house.outbox.document("news", {"n": 1})
        assert early is not None
        async with house.database.transaction() as tx:
            await tx.insert(OUTBOX, [early])
            house.clock.advance(5_000)
            await house.write({"n": 2})
            await drain(house)
            assert reader.seen == [2]
        await drain(house)
        assert reader.seen == [2, 1]

    async def test_two_processes_share_the_work(
        self, house: House, reader: Reader, mongo_client: MongoClient
    ) -> None:
        other = type(house)(Database(mongo_client, house.database.name), house.clock)
        other.add(reader.handle)
        count = BATCH_SIZE * 4
        await house.write(*({"n": number} for number in range(count)))
        await within_bound(asyncio.gather(drain(house), drain(other), drain(house), drain(other)))
        assert Counter(reader.seen) == Counter(range(count))
        assert await house.rows() == []


@pytest.fixture
async def mongod(tmp_path: Path) -> AsyncIterator[EmbeddedMongod]:
    """One that a test may stop and start."""
    mongod = EmbeddedMongod(tmp_path, cache_gigabytes=0.25)
    yield mongod
    await mongod.stop()


async def until_written(house: House, payload: dict[str, int]) -> None:
    """Ask until the driver has found the database again; it looks for half a second each time."""
    async with asyncio.timeout(BOUND_SECONDS):
        while True:
            with suppress(DatabaseUnavailable):
                await house.write(payload)
                return


class Killed(BaseException):
    """Ends everything on the spot, as kill -9 does: nothing is tidied on its way."""


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await within_bound(asyncio.wait([task]))
    assert task.cancelled()


class TestCrash:
    async def test_a_kill_between_handling_and_marking_delivers_again(
        self, house: House, reader: Reader, clock: ManualClock
    ) -> None:
        async def handle(message: Message) -> None:
            await reader.handle(message)
            if message.payload["n"] == 2:
                raise Killed

        killed = type(house)(house.database, clock)
        killed.add(handle)
        await house.write({"n": 1})
        clock.advance(1)
        await house.write({"n": 2})
        with pytest.raises(Killed):
            await killed.dispatcher.run_once()
        assert reader.seen == [1, 2]

        await drain(house)
        assert reader.seen == [1, 2]
        clock.advance(LEASE_MS)
        await drain(house)
        assert reader.seen == [1, 2, 1, 2]
        assert await house.rows() == []

    async def test_cancelled_it_marks_what_was_handled_and_gives_the_rest_back(
        self, house: House, reader: Reader, clock: ManualClock
    ) -> None:
        stuck = asyncio.Event()

        async def handle(message: Message) -> None:
            if message.payload["n"] == 2:
                stuck.set()
                await asyncio.Event().wait()
            await reader.handle(message)

        leaving = type(house)(house.database, clock)
        leaving.add(handle)
        for number in (1, 2, 3):
            await house.write({"n": number})
            clock.advance(1)
        task = asyncio.create_task(leaving.dispatcher.run())
        await within_bound(stuck.wait())
        await cancelled(task)
        assert reader.seen == [1]
        await drain(house)
        assert sorted(reader.seen) == [1, 2, 3]

    async def test_a_lost_cancellation_still_ends_the_loop(self, house: House) -> None:
        begun = asyncio.Event()

        async def handle(message: Message) -> None:
            begun.set()
            # What Python 3.11's wait_for can do.
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return

        house.add(handle)
        await house.write({"n": 1})
        task = asyncio.create_task(house.dispatcher.run())
        await within_bound(begun.wait())
        await cancelled(task)

    async def test_the_database_goes_away_and_comes_back(
        self, house: House, mongod: EmbeddedMongod, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(loop, "MAX_PAUSE_SECONDS", 0.1)
        client = await connect(await mongod.start() + "&serverSelectionTimeoutMS=500")
        database = Database(client, "away")
        await database.prepare(COLLECTIONS)
        there = type(house)(database, house.clock)
        seen = asyncio.Event()

        async def handle(_: Message) -> None:
            seen.set()

        there.add(handle)
        await there.dispatcher.run_once()
        await mongod.stop()
        task = asyncio.create_task(there.dispatcher.run())
        with pytest.raises(DatabaseUnavailable):
            await there.dispatcher.run_once()

        await mongod.start()
        await until_written(there, {"n": 1})
        await within_bound(seen.wait())
        await cancelled(task)
        await client.close()


class TestFailure:
    async def test_is_tried_again_after_pauses_that_double(
        self, house: House, reader: Reader, clock: ManualClock
    ) -> None:
        reader.failures[1] = RuntimeError("no")
        await house.write({"n": 1})
        pause = FIRST_RETRY_MS
        for attempt in range(1, 4):
            await drain(house)
            assert len(reader.seen) == attempt
            clock.advance(pause - 1)
            await drain(house)
            assert len(reader.seen) == attempt
            clock.advance(1)
            pause *= 2
        del reader.failures[1]
        await drain(house)
        assert len(reader.seen) == 4
        assert await house.rows() == []
        assert await dead_letters(house) == []

    async def test_one_poisonous_message_blocks_nobody_and_dies_with_its_reason(
        self, house: House, reader: Reader, clock: ManualClock
    ) -> None:
        reader.failures[2] = RuntimeError("cannot swallow 2")
        await house.write({"n": 1}, {"n": 2}, {"n": 3})
        await drain(house)
        assert sorted(reader.seen) == [1, 2, 3]
        for _ in range(MAX_ATTEMPTS):
            clock.advance(MAX_RETRY_MS)
            await drain(house)
        assert reader.seen.count(2) == MAX_ATTEMPTS
        assert await house.rows() == []
        [dead] = await dead_letters(house)
        assert dead["consumer"] == "reader"
        assert dead["topic"] == "news"
        assert dead["payload"] == {"n": 2}
        assert dead["reason"] == "RuntimeError: cannot swallow 2"
        assert dead["attempts"] == MAX_ATTEMPTS

    async def test_a_rejected_message_dies_at_once(self, house: House, reader: Reader) -> None:
        reader.failures[1] = Rejected("has no n that I know")
        await house.write({"n": 1})
        await drain(house)
        assert reader.seen == [1]
        [dead] = await dead_letters(house)
        assert dead["reason"] == "has no n that I know"
        assert dead["attempts"] == 1

    async def test_a_message_dies_for_one_consumer_only(self, house: House, reader: Reader) -> None:
        reader.failures[1] = Rejected("no")
        archived: list[Message] = []

        async def archive(message: Message) -> None:
            archived.append(message)

        house.add(archive, name="archive")
        await house.write({"n": 1})
        await drain(house)
        assert len(archived) == 1
        assert [dead["consumer"] for dead in await dead_letters(house)] == ["reader"]
        assert await house.rows() == []

    @pytest.mark.parametrize(
        "away", [ConsumerUnavailable("broker"), DatabaseUnavailable("database")]
    )
    async def test_a_consumer_that_is_away_costs_no_attempt(
        self, house: House, reader: Reader, away: Exception
    ) -> None:
        await house.write({"n": 1})
        reader.failures[1] = away
        for _ in range(MAX_ATTEMPTS + 1):
            with pytest.raises(ConsumerUnavailable):
                await house.dispatcher.run_once()
        reader.failures.clear()
        await drain(house)
        assert len(reader.seen) == MAX_ATTEMPTS + 2
        assert await dead_letters(house) == []

    async def test_what_was_handled_before_the_consumer_went_away_is_marked(
        self, house: House, reader: Reader, clock: ManualClock
    ) -> None:
        for number in range(3):
            await house.write({"n": number})
            clock.advance(1)
        reader.failures[1] = ConsumerUnavailable("broker")
        with pytest.raises(ConsumerUnavailable):
            await house.dispatcher.run_once()
        reader.failures.clear()
        await drain(house)
        assert reader.seen == [0, 1, 1, 2]

    async def test_a_handler_that_hangs_is_cut_off(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(loop, "HANDLE_TIMEOUT_SECONDS", 0.01)

        async def handle(_: Message) -> None:
            await asyncio.Event().wait()

        house.add(handle)
        await house.write({"n": 1})
        await within_bound(drain(house))
        [row] = await house.rows()
        assert row["undone"][0]["attempts"] == 1

    async def test_a_handler_whose_own_work_was_cancelled_has_failed(self, house: House) -> None:
        async def handle(_: Message) -> None:
            raise asyncio.CancelledError

        house.add(handle)
        await house.write({"n": 1})
        await drain(house)
        [row] = await house.rows()
        assert row["undone"][0]["attempts"] == 1

    async def test_no_message_is_begun_that_could_outlive_the_lease(
        self, house: House, clock: ManualClock
    ) -> None:
        handled = 0

        async def handle(_: Message) -> None:
            nonlocal handled
            handled += 1
            clock.advance(LEASE_MS // 2)

        house.add(handle)
        await house.write(*({"n": number} for number in range(4)))
        assert await house.dispatcher.run_once() == 4
        assert handled == 2
        await drain(house)
        assert handled == 4


class TestRun:
    async def test_wake_needs_no_poll(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loop, "POLL_INTERVAL_SECONDS", AN_HOUR_MS)
        handled: asyncio.Queue[int] = asyncio.Queue()

        async def handle(message: Message) -> None:
            handled.put_nowait(message.payload["n"])

        house.add(handle)
        task = asyncio.create_task(house.dispatcher.run())
        for number in range(3):
            await house.write({"n": number})
            house.dispatcher.wake(("news",))
            async with asyncio.timeout(BOUND_SECONDS):
                assert await handled.get() == number
        await cancelled(task)

    async def test_wakes_only_who_takes_the_topic(self, house: House, reader: Reader) -> None:
        house.add(reader.handle, "other", "weather")
        loops = house.dispatcher._begin()

        house.dispatcher.wake(("weather",))

        assert [loop.name for loop in loops if loop.woken.is_set()] == ["other"]

    async def test_a_wake_while_it_works_is_not_lost(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(loop, "POLL_INTERVAL_SECONDS", AN_HOUR_MS)
        second = asyncio.Event()

        async def handle(message: Message) -> None:
            if message.payload["n"] == 2:
                second.set()
                return
            await house.write({"n": 2})
            house.dispatcher.wake(("news",))

        house.add(handle)
        await house.write({"n": 1})
        task = asyncio.create_task(house.dispatcher.run())
        await within_bound(second.wait())
        await cancelled(task)

    async def test_without_consumers_it_waits_to_be_cancelled(self, house: House) -> None:
        task = asyncio.create_task(house.dispatcher.run())
        await asyncio.sleep(0)
        await cancelled(task)

    async def test_another_process_s_rows_are_found_without_wake(
        self, house: House, reader: Reader
    ) -> None:
        handled = asyncio.Event()

        async def handle(_: Message) -> None:
            handled.set()

        other = type(house)(house.database, house.clock)
        other.add(handle)
        task = asyncio.create_task(other.dispatcher.run())
        await house.write({"n": 1})
        await within_bound(handled.wait())
        await cancelled(task)


class TestHandOver:
    """Rows that their writer's own process dispatches without looking for them."""

    async def test_is_handled_and_gone_without_being_due(
        self, house: House, reader: Reader
    ) -> None:
        await house.dispatcher.run_once()
        rows = await house.commit_for_handover(1, 2)
        assert await house.dispatcher.run_once() == 0, "left to the one that wrote them"
        house.dispatcher.hand_over(rows)
        assert await house.dispatcher.run_once() == 2
        assert reader.seen == [1, 2]
        assert await house.rows() == []

    async def test_whoever_takes_another_topic_is_not_handed_it(
        self, house: House, reader: Reader
    ) -> None:
        house.add(reader.handle, "other", "weather")
        loops = house.dispatcher._begin()
        house.dispatcher.hand_over(await house.commit_for_handover(1))
        assert [loop.name for loop in loops if loop.woken.is_set()] == ["reader"]

    async def test_a_writer_that_dies_leaves_its_rows_to_others(
        self, house: House, reader: Reader, clock: ManualClock
    ) -> None:
        await house.commit_for_handover(1)
        clock.advance(HANDOVER_MS)
        assert await house.dispatcher.run_once() == 1
        assert reader.seen == [1]

    async def test_what_fails_is_tried_again_when_it_is_due(
        self, house: House, reader: Reader, clock: ManualClock
    ) -> None:
        await house.dispatcher.run_once()
        reader.failures = {1: ValueError("not today"), 2: Rejected("never")}
        house.dispatcher.hand_over(await house.commit_for_handover(1, 2, 3))
        await house.dispatcher.run_once()
        assert [row["payload"]["n"] for row in await house.rows()] == [1, 2]
        reader.failures = {}
        clock.advance(HANDOVER_MS)
        await house.dispatcher.run_once()
        assert reader.seen == [1, 2, 3, 1, 2]
        assert await house.rows() == []

    async def test_more_than_may_wait_are_found_when_they_are_due(
        self, house: House, reader: Reader, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await house.dispatcher.run_once()
        monkeypatch.setattr("server.messaging.loop.MAX_HANDED", 1)
        house.dispatcher.hand_over(await house.commit_for_handover(1, 2))
        await house.dispatcher.run_once()
        assert reader.seen == [1]
        clock.advance(HANDOVER_MS)
        await house.dispatcher.run_once()
        assert reader.seen == [1, 2]

    async def test_others_rows_are_looked_for_beside_them(
        self, house: House, reader: Reader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("server.messaging.loop.POLL_INTERVAL_SECONDS", 0)
        await house.dispatcher.run_once()
        await house.write({"n": 9})
        house.dispatcher.hand_over(await house.commit_for_handover(1))
        assert await house.dispatcher.run_once() == 2
        assert reader.seen == [1, 9]
