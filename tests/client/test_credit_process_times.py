"""`credit_process` through cancellations, long blocks, restarts and holds that run out."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from zaaz.ledger.v1.hold_pb2 import (
    DISCONNECT_POLICY_RELEASE,
    HOLD_STATE_ACTIVE,
    HOLD_STATE_CAPTURED,
    HOLD_STATE_RELEASED,
)
from zaaz_client import (
    CreditProcess,
    CreditProcessSettings,
    HoldEnded,
    ZaazClient,
)

from tests.client.processes import (
    CREDIT,
    USED,
    Answers,
    balance,
    hold_of,
    process,
    release,
    seen,
    started,
)
from tests.conftest import MongoClient
from tests.holds.conftest import HELD_MICROS
from tests.ledger.calls import soon
from tests.run.command import Command, free_port
from tests.run.processes import until
from tests.serving import (
    SECRET,
    ManualClock,
    Served,
    connected,
    make_key,
    new_key,
)

QUICK = CreditProcessSettings(
    authorize_timeout_seconds=5,
    settle_timeout_seconds=5,
    cancel_timeout_seconds=0.3,
    report_interval_seconds=0.1,
)


class TestCancellation:
    @pytest.mark.parametrize("reports", [False, True])
    async def test_settles_first(self, partner: ZaazClient, served: Served, reports: bool) -> None:
        user_id = await served.new_wallet(CREDIT)
        inside: asyncio.Future[CreditProcess] = asyncio.Future()

        async def work() -> None:
            async with process(partner, user_id) as use:
                if reports:
                    use.report(**USED)
                inside.set_result(use)
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        use = await soon(inside)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(task)
        state = (await hold_of(partner, use.hold.id)).state
        assert state == (HOLD_STATE_CAPTURED if reports else HOLD_STATE_RELEASED)

    async def test_as_often_as_one_likes(self, partner: ZaazClient, served: Served) -> None:
        user_id = await served.new_wallet(CREDIT)
        calls = Answers(partner, "ReleaseHold", before=True)
        task, use = await started(partner, user_id, cancel_timeout_seconds=10.0)
        task.cancel()
        await soon(calls.arrived.wait())
        task.cancel()
        calls.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await soon(task)
        assert (await hold_of(partner, use.hold.id)).state == HOLD_STATE_RELEASED

    async def test_is_not_held_up_by_a_server_that_is_silent(
        self, partner: ZaazClient, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        user_id = await served.new_wallet(CREDIT)
        Answers(partner, "ReleaseHold")  # which never go on
        task, use = await started(partner, user_id, cancel_timeout_seconds=0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(task)
        assert f"no time to settle hold {use.hold.id}" in caplog.text

    async def test_while_it_settles(self, partner: ZaazClient, served: Served) -> None:
        user_id = await served.new_wallet(CREDIT)
        answers = Answers(partner, "CaptureHold")

        async def work() -> None:
            async with process(partner, user_id) as use:
                use.report(**USED)

        task = asyncio.create_task(work())
        await soon(answers.arrived.wait())
        task.cancel()
        answers.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await soon(task)
        assert await balance(partner, user_id) == (CREDIT - HELD_MICROS // 2, 0)

    async def test_while_it_is_authorized_gives_the_hold_up(
        self, partner: ZaazClient, served: Served
    ) -> None:
        user_id = await served.new_wallet(CREDIT)
        answers = Answers(partner, "AuthorizeUsage")

        async def work() -> None:
            async with process(partner, user_id):
                pytest.fail("it was let in")

        task = asyncio.create_task(work())
        await soon(answers.arrived.wait())
        assert await balance(partner, user_id) == (CREDIT, HELD_MICROS)
        task.cancel()
        answers.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await soon(task)
        assert await balance(partner, user_id) == (CREDIT, 0)


class TestLongBlock:
    async def test_outlives_the_first_time_of_its_hold(
        self, partner: ZaazClient, served: Served
    ) -> None:
        user_id = await served.new_wallet(CREDIT)
        async with process(partner, user_id, ttl=timedelta(seconds=2)) as use:
            first_end = use.hold.expires_time.ToDatetime()

            async def extended_past_it() -> bool:
                hold = await hold_of(partner, use.hold.id)
                assert hold.state == HOLD_STATE_ACTIVE
                return hold.expires_time.ToDatetime() > first_end + timedelta(seconds=1.9)

            await seen(extended_past_it)
            use.report(**USED)
        assert use.charge is not None
        assert not use.charge.late

    async def test_is_extended_within_a_bound(
        self, partner: ZaazClient, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        user_id = await served.new_wallet(CREDIT)
        settings = CreditProcessSettings(max_extended_seconds=0.01)
        async with process(partner, user_id, ttl=timedelta(seconds=1), settings=settings) as use:
            await until(lambda: "as long as it may" in caplog.text, 10)
            use.report(**USED)
        assert len(await served.transactions(user_id)) <= 4  # grant, hold, one extension, end

    async def test_goes_on_when_its_hold_cannot_be_extended(
        self, partner: ZaazClient, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        user_id = await served.new_wallet(CREDIT)
        async with process(partner, user_id, ttl=timedelta(seconds=1)) as use:
            await release(partner, use.hold.id)
            await until(lambda: "cannot be extended: HOLD_ENDED" in caplog.text, 10)
            use.report(**USED)
        assert use.charge is not None
        assert use.charge.late
        assert use.charge.cost_micros == HELD_MICROS // 2
        assert await balance(partner, user_id) == (CREDIT - HELD_MICROS // 2, 0)


class TestServerDies:
    @pytest.fixture
    async def mortal(
        self, mongo_url: str, mongo_client: MongoClient, tmp_path: Path
    ) -> AsyncIterator[tuple[Command, str]]:
        """A server of the test's own, and a key for it."""
        name = f"test_{new_key()[:16]}"
        settings = {"mongo_url": mongo_url, "mongo_database": name, "secret": SECRET}
        address = f"127.0.0.1:{free_port()}"
        command = Command(tmp_path / "data", tmp_path / "log", grpc_address=address, **settings)
        await command.start()
        yield command, await make_key(mongo_url, name, "tests", ["admin"])
        await command.clean_up()
        await mongo_client.drop_database(name)

    async def test_and_comes_back(self, mortal: tuple[Command, str]) -> None:
        server, key = mortal
        target = server.ready["grpc"]
        async with connected(target, key) as served, ZaazClient(target, key) as client:
            user_id = await served.new_wallet(CREDIT)
            async with process(client, user_id) as use:
                use.report(**USED)
                await server.kill()
                restart = asyncio.create_task(server.start())
            await restart
            assert use.charge is not None
            assert not use.charge.late
            assert await balance(client, user_id) == (CREDIT - HELD_MICROS // 2, 0)
            await served.assert_sound(user_id)


class TestTimeRanOut:
    """Nobody could extend the hold for as long as it lives."""

    async def test_use_is_billed_all_the_same(
        self, timed: ZaazClient, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet(CREDIT)
        policy = DISCONNECT_POLICY_RELEASE
        async with process(timed, user_id, disconnect_policy=policy) as use:
            use.report(**USED)
            manual_clock.advance(600_000)
        assert use.charge is not None
        assert use.charge.late
        assert use.charge.cost_micros == HELD_MICROS // 2
        assert await balance(timed, user_id) == (CREDIT - HELD_MICROS // 2, 0)

    async def test_what_the_policy_has_billed_is_not_billed_again(
        self, timed: ZaazClient, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet(CREDIT)
        use = process(timed, user_id, settings=QUICK)

        async def told() -> bool:
            return (await hold_of(timed, use.hold.id)).reported_micros > 0

        async def work() -> None:
            async with use:
                use.report(**USED)
                await seen(told)
                manual_clock.advance(600_000)

        with pytest.raises(HoldEnded):
            await work()
        assert await balance(timed, user_id) == (CREDIT - HELD_MICROS // 2, 0)


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "zaaz_client")
