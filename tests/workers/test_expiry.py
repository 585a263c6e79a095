"""The expiry worker: one sweeps at a time, where another stopped, and everything once."""

import asyncio
from collections.abc import Sequence

import pytest
from bson import ObjectId
from zaaz.ledger.v1 import credits_transaction_pb2, grant_pb2

from server.kernel.clock import DAY_MS
from server.kernel.tasks import end
from server.ledger.alerts import Alert
from server.ledger.reader import LedgerReader
from server.mongo.database import Database
from server.workers.expiry import NOTICE_MS, ExpiryWorker
from server.workers.lease import LEASE_MS, Lease
from tests.conftest import MongoClient
from tests.holds.conftest import CAPTURE_ALL, HELD_MICROS, Holder
from tests.holds.work import assert_ended_once
from tests.ledger.calls import at
from tests.serving import ManualClock, Served, new_key, serving

SWEPT_SECONDS = 15.0
"""Bound on the wait for a sweep, of which there is one every second."""


async def until_sequence(served: Served, user_id: str, sequence: int) -> None:
    """The wallet's entries of that number are written, without anyone writing to it."""
    async with asyncio.timeout(SWEPT_SECONDS):
        rows = await served.transactions(user_id)
        while len(rows) < sequence:
            await asyncio.sleep(0.1)
            rows = await served.transactions(user_id)


class TestIdleWallets:
    async def test_get_their_entries(self, clocked: Served, manual_clock: ManualClock) -> None:
        timed = Holder(clocked)
        user_id = await clocked.new_wallet(3 * HELD_MICROS)
        released = await timed.place(user_id, ttl_seconds=10)
        captured = await timed.place(user_id, ttl_seconds=20, disconnect_policy=CAPTURE_ALL)
        # Of these, what is held outlives its time, and pays for the hold in the end.
        await clocked.grant(user_id, HELD_MICROS + 5, expires_time=at(manual_clock() + 15_000))
        manual_clock.advance(60_000)
        seen = await clocked.wallet(user_id)
        assert (seen.credits_micros, seen.held_micros) == (3 * HELD_MICROS, 0)
        await until_sequence(clocked, user_id, 7)
        ends = (await clocked.transactions(user_id))[4:]
        assert [row.hold_id for row in ends] == [released.id, "", captured.id]
        assert ends[0].increase_source == grant_pb2.INCREASE_SOURCE_HOLD_EXPIRY
        assert ends[1].decrease_reason == credits_transaction_pb2.DECREASE_REASON_EXPIRY
        assert ends[2].decrease_reason == credits_transaction_pb2.DECREASE_REASON_CAPTURE
        assert [row.occurred_time for row in ends] == [
            released.expires_time,
            at(manual_clock() - 45_000),
            captured.expires_time,
        ]
        wallet = await clocked.wallet(user_id)
        assert wallet.credits_micros == seen.credits_micros
        assert await assert_ended_once(clocked, user_id) == HELD_MICROS

    async def test_of_two_servers_and_callers_at_once_end_once(
        self, mongo_url: str, mongo_client: MongoClient, manual_clock: ManualClock
    ) -> None:
        name = f"test_{new_key()[:16]}"
        async with (
            serving(mongo_url, name, manual_clock) as here,
            serving(mongo_url, name, manual_clock) as there,
        ):
            users = [await here.new_wallet(2 * HELD_MICROS) for _ in range(20)]
            for user_id in users:
                await here.grant(user_id, 7, expires_time=at(manual_clock() + 5_000))
                await Holder(here).place(user_id, ttl_seconds=10, disconnect_policy=CAPTURE_ALL)
            manual_clock.advance(60_000)
            # Reads of both, and writes of one, while the sweep is under way.
            await asyncio.gather(*(there.wallet(user_id) for user_id in users))
            for user_id in users:
                await until_sequence(here, user_id, 4)
            for user_id in users:
                assert await assert_ended_once(there, user_id) == HELD_MICROS
                assert len(await there.transactions(user_id)) == 4
        await mongo_client.drop_database(name)


class TestLease:
    async def test_one_has_it_until_its_time_is_over(
        self, database: Database, manual_clock: ManualClock
    ) -> None:
        one, other = (Lease(database, "work", manual_clock) for _ in range(2))
        assert await one.hold()
        assert not await other.hold()
        manual_clock.advance(LEASE_MS - 1)
        assert await one.hold()
        manual_clock.advance(LEASE_MS - 1)
        assert not await other.hold()
        manual_clock.advance(1)
        assert await other.hold()
        assert not await one.hold()

    async def test_can_be_given_up_by_who_has_it(
        self, database: Database, manual_clock: ManualClock
    ) -> None:
        one, other = (Lease(database, "work", manual_clock) for _ in range(2))
        assert await one.hold()
        await other.give_up()
        assert not await other.hold()
        await one.give_up()
        assert await other.hold()
        assert await Lease(database, "other work", manual_clock).hold()

    async def test_remembers_where_its_holder_was(
        self, database: Database, manual_clock: ManualClock
    ) -> None:
        one, other = (Lease(database, "work", manual_clock) for _ in range(2))
        assert await one.position() is None
        assert await one.hold()
        place = ObjectId()
        await one.note(place)
        await other.note(ObjectId())
        assert await other.position() == place

    async def test_of_many_at_once_one_gets_it(
        self, database: Database, manual_clock: ManualClock
    ) -> None:
        leases = [Lease(database, "work", manual_clock) for _ in range(20)]
        assert sum(await asyncio.gather(*(lease.hold() for lease in leases))) == 1


class Recorder:
    """Who was tidied and what was announced, with an error in its place where one is due."""

    def __init__(self) -> None:
        self.tidied: list[str] = []
        self.announced: list[list[Alert]] = []
        self.pages_before_error = -1

    async def tidy(self, user_id: str) -> None:
        self.tidied.append(user_id)

    async def announce(self, alerts: Sequence[Alert]) -> None:
        if len(self.announced) == self.pages_before_error:
            raise RuntimeError("gone")
        self.announced.append(list(alerts))

    @property
    def noticed(self) -> list[str]:
        return [str(alert.user_id) for page in self.announced for alert in page]


def worker(
    database: Database, clock: ManualClock, recorder: Recorder, days: Sequence[int] = ()
) -> ExpiryWorker:
    lease = Lease(database, "expiry", clock)
    reader = LedgerReader(database, clock)
    return ExpiryWorker(recorder, reader, recorder, lease, clock, days)


@pytest.fixture
async def stored(database: Database, mongo_url: str, manual_clock: ManualClock) -> list[str]:
    """Users of wallets with a grant that ends in a day; their server is gone."""
    async with serving(mongo_url, database.name, manual_clock) as served:
        users = [await served.new_wallet() for _ in range(5)]
        for user_id in users:
            await served.grant(user_id, 5, expires_time=at(manual_clock() + DAY_MS))
    return users


class TestSweeps:
    async def test_one_sweeps_and_the_other_takes_over(
        self, database: Database, manual_clock: ManualClock, stored: list[str]
    ) -> None:
        one, other = Recorder(), Recorder()
        first, second = (worker(database, manual_clock, who) for who in (one, other))
        await first.sweep()
        assert one.tidied == []
        manual_clock.advance(DAY_MS)
        await first.sweep()
        await second.sweep()
        assert (sorted(one.tidied), other.tidied) == (sorted(stored), [])
        manual_clock.advance(LEASE_MS)
        await second.sweep()
        await first.sweep()
        assert (len(one.tidied), sorted(other.tidied)) == (5, sorted(stored))

    async def test_page_by_page(
        self,
        database: Database,
        manual_clock: ManualClock,
        stored: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("server.workers.expiry.PAGE_WALLETS", 2)
        recorder = Recorder()
        manual_clock.advance(DAY_MS)
        await worker(database, manual_clock, recorder).sweep()
        assert sorted(recorder.tidied) == sorted(stored)

    async def test_notices_go_on_where_they_stopped(
        self,
        database: Database,
        manual_clock: ManualClock,
        stored: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("server.workers.expiry.PAGE_WALLETS", 2)
        one, other = Recorder(), Recorder()
        one.pages_before_error = 1
        with pytest.raises(RuntimeError):
            await worker(database, manual_clock, one, (7, 1)).sweep()
        assert len(one.noticed) == 2
        manual_clock.advance(LEASE_MS)
        second = worker(database, manual_clock, other, (7, 1))
        await second.sweep()
        assert sorted(one.noticed + other.noticed) == sorted(stored)
        # The next round begins at the beginning, an hour later and not before.
        await second.sweep()
        assert len(other.noticed) == 3
        manual_clock.advance(NOTICE_MS)
        await second.sweep()
        assert sorted(other.noticed[3:]) == sorted(stored)
        assert {alert.days for page in other.announced for alert in page} == {1}

    async def test_what_fails_is_done_again(
        self,
        database: Database,
        manual_clock: ManualClock,
        stored: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Run by itself: a sweep that fails does not end it, and its end frees the lease."""
        monkeypatch.setattr("server.workers.expiry.SWEEP_SECONDS", 0.01)
        recorder, failed = Recorder(), asyncio.Event()
        tidy = recorder.tidy

        async def failing(user_id: str) -> None:
            if not failed.is_set():
                failed.set()
                raise RuntimeError("gone")
            await tidy(user_id)

        monkeypatch.setattr(recorder, "tidy", failing)
        manual_clock.advance(DAY_MS)
        running = asyncio.create_task(worker(database, manual_clock, recorder).run())
        async with asyncio.timeout(SWEPT_SECONDS):
            while set(recorder.tidied) != set(stored):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        await end(running)
        assert await Lease(database, "expiry", manual_clock).hold()
