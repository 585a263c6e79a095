"""Rows and marks: what is written, what a claim holds, when a row goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.messaging.outbox import OUTBOX
from server.messaging.store import LEASE_MS, OutboxStore
from tests.serving import ManualClock

if TYPE_CHECKING:
    from tests.messaging.conftest import House, Reader


class TestDocument:
    async def test_a_topic_that_nobody_takes_writes_nothing(
        self, house: House, reader: Reader
    ) -> None:
        assert house.outbox.document("weather", {"n": 1}) is None
        assert house.outbox.document("news", {"n": 1}) is not None

    async def test_lists_everyone_who_takes_the_topic(self, house: House, reader: Reader) -> None:
        house.add(reader.handle, name="archive")
        row = house.outbox.document("news", {"n": 1}, key="k")
        assert row is not None
        assert [entry["consumer"] for entry in row["undone"]] == ["reader", "archive"]
        assert row["key"] == "k"

    async def test_a_transaction_that_aborts_leaves_no_message(
        self, house: House, reader: Reader
    ) -> None:
        row = house.outbox.document("news", {"n": 1})
        assert row is not None

        async def fail() -> None:
            async with house.database.transaction() as tx:
                await tx.insert(OUTBOX, [row])
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await fail()
        assert await house.dispatcher.run_once() == 0
        assert reader.seen == []


class TestConsumers:
    def test_names_are_unique(self, house: House, reader: Reader) -> None:
        with pytest.raises(ValueError, match="reader"):
            house.add(reader.handle)

    async def test_nobody_comes_after_dispatching_began(self, house: House, reader: Reader) -> None:
        await house.dispatcher.run_once()
        with pytest.raises(RuntimeError, match="late"):
            house.add(reader.handle, name="late")


class TestClaim:
    async def test_is_exclusive_until_its_lease_is_over(
        self, house: House, reader: Reader, clock: ManualClock
    ) -> None:
        await house.write({"n": 1}, {"n": 2})
        store = OutboxStore(house.database, clock)
        first = await store.claim("reader", 10)
        assert len(first.messages) == 2
        assert (await store.claim("reader", 10)).messages == ()
        clock.advance(LEASE_MS)
        assert len((await store.claim("reader", 10)).messages) == 2

    async def test_leases_belong_to_one_consumer(self, house: House, reader: Reader) -> None:
        house.add(reader.handle, name="archive")
        await house.write({"n": 1})
        store = OutboxStore(house.database, house.clock)
        assert len((await store.claim("reader", 10)).messages) == 1
        assert len((await store.claim("archive", 10)).messages) == 1

    async def test_what_is_given_back_is_due_at_once(self, house: House, reader: Reader) -> None:
        await house.write({"n": 1})
        store = OutboxStore(house.database, house.clock)
        claim = await store.claim("reader", 10)
        await store.release(claim, [claim.messages[0].id])
        assert len((await store.claim("reader", 10)).messages) == 1

    async def test_who_lost_the_lease_can_neither_put_off_nor_bury(
        self, house: House, reader: Reader, clock: ManualClock
    ) -> None:
        await house.write({"n": 1})
        store = OutboxStore(house.database, clock)
        old = await store.claim("reader", 10)
        clock.advance(LEASE_MS)
        new = await store.claim("reader", 10)
        await store.retry(old, old.messages[0], 1_000_000)
        assert not await store.bury(old, old.messages[0], "too late")
        await store.release(old, [old.messages[0].id])
        assert (await store.claim("reader", 10)).messages == ()
        assert await store.bury(new, new.messages[0], "in time")
        assert await house.rows() == []

    async def test_the_longest_due_come_first_and_a_claim_is_bounded(
        self, house: House, reader: Reader, clock: ManualClock
    ) -> None:
        for number in range(5):
            await house.write({"n": number})
            clock.advance(1)
        store = OutboxStore(house.database, clock)
        claim = await store.claim("reader", 3)
        assert [message.payload["n"] for message in claim.messages] == [0, 1, 2]
        rest = await store.claim("reader", 3)
        assert [message.payload["n"] for message in rest.messages] == [3, 4]

    async def test_a_row_that_a_failover_could_take_back_is_for_later(
        self, house: House, reader: Reader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await house.write({"n": 1})
        store = OutboxStore(house.database, house.clock)
        with monkeypatch.context() as patch:
            # What a majority knows while it lags behind: nothing.
            patch.setattr(store, "_committed", house.database.collection("empty"))
            assert (await store.claim("reader", 10)).messages == ()
        assert len((await store.claim("reader", 10)).messages) == 1


class TestDone:
    @pytest.mark.parametrize("order", [["reader", "archive"], ["archive", "reader"]])
    async def test_a_row_goes_with_its_last_consumer(
        self, house: House, reader: Reader, order: list[str]
    ) -> None:
        house.add(reader.handle, name="archive")
        await house.write({"n": 1}, {"n": 2})
        store = OutboxStore(house.database, house.clock)
        claims = [await store.claim(name, 10) for name in order]
        await store.done(claims[0], [message.id for message in claims[0].messages])
        undone = [entry["consumer"] for row in await house.rows() for entry in row["undone"]]
        assert undone == [order[1]] * 2
        await store.done(claims[1], [message.id for message in claims[1].messages])
        assert await house.rows() == []

    async def test_twice_is_once(self, house: House, reader: Reader) -> None:
        house.add(reader.handle, name="archive")
        await house.write({"n": 1})
        store = OutboxStore(house.database, house.clock)
        claim = await store.claim("reader", 10)
        for _ in range(2):
            await store.done(claim, [claim.messages[0].id])
        assert len(await house.rows()) == 1
