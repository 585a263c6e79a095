"""`credit_process` against a real server: however its block ends, the hold ends rightly."""

import asyncio
import logging
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from zaaz.credits.v1 import credits_process_service_pb2 as pb
from zaaz.ledger.v1.hold_pb2 import (
    DISCONNECT_POLICY_RELEASE,
    HOLD_STATE_ACTIVE,
    HOLD_STATE_CAPTURED,
    HOLD_STATE_RELEASED,
    Hold,
)
from zaaz.wallet.v1.wallet_service_pb2 import GetWalletRequest
from zaaz_client import (
    Contention,
    CreditProcess,
    CreditProcessSettings,
    HoldEnded,
    InsufficientCredits,
    NotAuthorized,
    Unavailable,
    UsageNotReported,
    WalletNotFound,
    ZaazClient,
)
from zaaz_client.resource_errors import FeatureEndpointInactive, WordLimitExceeded

from tests.catalog.calls import new_endpoint
from tests.conftest import MongoClient
from tests.holds.conftest import HELD_MICROS
from tests.ledger.calls import soon
from tests.run.command import Command, free_port
from tests.run.processes import until
from tests.serving import (
    MODEL,
    SECRET,
    ManualClock,
    Served,
    connected,
    make_key,
    new_key,
    new_user,
)

CREDIT = 1_000_000
QUICK = CreditProcessSettings(
    authorize_timeout_seconds=5,
    settle_timeout_seconds=5,
    cancel_timeout_seconds=0.3,
    report_interval_seconds=0.1,
)
USED = {"input_tokens": 500, "output_tokens": 250}
"""Half of what is held."""


class BrokeError(Exception):
    """The model is out."""


@pytest.fixture
async def partner(served: Served) -> AsyncIterator[ZaazClient]:
    async with ZaazClient(served.target, served.api_key) as client:
        yield client


@pytest.fixture
async def timed(clocked: Served) -> AsyncIterator[ZaazClient]:
    """On a server whose clock the test moves."""
    async with ZaazClient(clocked.target, clocked.api_key) as client:
        yield client


def process(client: ZaazClient, user_id: str, **more: Any) -> CreditProcess:
    values = {"max_input_tokens": 1_000, "max_output_tokens": 500, **more}
    return client.credit_process(user_id, ai_model=MODEL, **values)


async def hold_of(client: ZaazClient, hold_id: str) -> Hold:
    return (await client.process.GetHold(pb.GetHoldRequest(id=hold_id))).hold


async def balance(client: ZaazClient, user_id: str) -> tuple[int, int]:
    """Credits and what of them is held."""
    wallet = (await client.wallets.GetWallet(GetWalletRequest(user_id=user_id))).wallet
    return wallet.credits_micros, wallet.held_micros


async def seen(holds: Callable[[], Awaitable[bool]]) -> None:
    async def look() -> None:
        while not await holds():  # noqa: ASYNC110 - the server is what is looked at
            await asyncio.sleep(0.02)

    await soon(look())


class TestEndsOrderly:
    async def test_what_was_reported_last_is_billed(
        self, partner: ZaazClient, served: Served
    ) -> None:
        user_id = await served.new_wallet(CREDIT)
        async with process(partner, user_id, labels={"team": "a"}, usage_key="chat-1") as use:
            assert use.estimate.credits_micros == use.hold.held_micros == HELD_MICROS
            assert await balance(partner, user_id) == (CREDIT, HELD_MICROS)
            use.report(input_tokens=10)
            use.report(**USED)
        assert use.charge is not None
        assert use.charge.cost_micros == HELD_MICROS // 2
        assert (use.charge.shortfall_micros, use.charge.late) == (0, False)
        assert use.charge.balance_after_micros == CREDIT - HELD_MICROS // 2
        assert await balance(partner, user_id) == (CREDIT - HELD_MICROS // 2, 0)
        entry = (await served.transactions(user_id))[-1]
        assert (entry.id, entry.usage_key) == (use.charge.transaction_id, "chat-1")
        assert entry.labels["team"] == "a"

    async def test_more_than_was_held(self, partner: ZaazClient, served: Served) -> None:
        user_id = await served.new_wallet(HELD_MICROS + 10)
        async with process(partner, user_id) as use:
            use.report(input_tokens=2_000, output_tokens=1_000)
        assert use.charge is not None
        assert use.charge.cost_micros == 2 * HELD_MICROS
        assert use.charge.shortfall_micros == HELD_MICROS - 10

    async def test_nothing_used(self, partner: ZaazClient, served: Served) -> None:
        user_id = await served.new_wallet(CREDIT)
        async with process(partner, user_id) as use:
            use.report()
        assert use.charge is not None
        assert use.charge.cost_micros == 0
        assert (await hold_of(partner, use.hold.id)).state == HOLD_STATE_CAPTURED

    async def test_released_by_its_caller(self, partner: ZaazClient, served: Served) -> None:
        user_id = await served.new_wallet(CREDIT)
        async with process(partner, user_id) as use:
            use.report(**USED)
            use.release("the user was offline")
        assert use.charge is None
        assert (await served.transactions(user_id))[-1].reason == "the user was offline"
        assert await balance(partner, user_id) == (CREDIT, 0)

    async def test_nobody_said_what_was_used(self, partner: ZaazClient, served: Served) -> None:
        user_id = await served.new_wallet(CREDIT)
        with pytest.raises(UsageNotReported, match=r"report\(\)"):
            async with process(partner, user_id) as use:
                pass
        assert (await hold_of(partner, use.hold.id)).state == HOLD_STATE_RELEASED
        assert await balance(partner, user_id) == (CREDIT, 0)

    async def test_an_endpoint_without_tokens_needs_no_report(
        self, partner: ZaazClient, served: Served
    ) -> None:
        user_id = await served.new_wallet(CREDIT)
        endpoint = await new_endpoint(served, 300)
        async with partner.credit_process(user_id, feature_endpoint=endpoint.value) as use:
            assert use.hold.held_micros == 300
        assert use.charge is not None
        assert use.charge.cost_micros == 300
        assert await balance(partner, user_id) == (CREDIT - 300, 0)

    async def test_is_for_one_use(self, partner: ZaazClient, served: Served) -> None:
        user_id = await served.new_wallet(CREDIT)
        use = process(partner, user_id)
        with pytest.raises(RuntimeError, match="async with"):
            _ = use.hold
        async with use:
            with pytest.raises(ValueError, match="zero"):
                use.report(input_tokens=-1)
            use.report()
        with pytest.raises(RuntimeError, match="another"):
            async with use:
                pass


class TestDenied:
    async def test_says_every_reason(self, partner: ZaazClient, served: Served) -> None:
        user_id = await served.new_wallet(HELD_MICROS - 7)
        with pytest.raises(NotAuthorized) as caught:
            async with process(partner, user_id):
                pytest.fail("it was let in")
        error = caught.value
        (denial,) = error.denials
        assert isinstance(denial, InsufficientCredits)
        assert (error.reason, error.shortfall_micros) == ("INSUFFICIENT_CREDITS", 7)
        assert error.metadata == denial.metadata
        assert denial.required_micros == error.estimate_micros == HELD_MICROS
        assert not error.retryable
        assert "INSUFFICIENT_CREDITS" in str(error)

    async def test_of_several_reasons(self, partner: ZaazClient, served: Served) -> None:
        user_id = await served.new_wallet()
        endpoint = await new_endpoint(served, 300, is_active=False)
        with pytest.raises(NotAuthorized) as caught:
            async with partner.credit_process(user_id, feature_endpoint=endpoint.value):
                pass
        reasons = {denial.reason for denial in caught.value.denials}
        assert reasons == {"FEATURE_ENDPOINT_INACTIVE", "INSUFFICIENT_CREDITS"}
        assert caught.value.find(FeatureEndpointInactive) is not None
        assert caught.value.find(WordLimitExceeded) is None
        assert caught.value.shortfall_micros == 300
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (str(copy), len(copy.denials)) == (str(caught.value), 2)

    async def test_may_be_asked_again(self, partner: ZaazClient, served: Served) -> None:
        user_id = await served.new_wallet()
        use = process(partner, user_id)
        with pytest.raises(NotAuthorized):
            async with use:
                pass
        await served.grant(user_id, CREDIT)
        async with use:
            use.report(**USED)
        assert use.charge is not None

    async def test_errors_are_those_of_the_call(self, partner: ZaazClient) -> None:
        with pytest.raises(WalletNotFound):
            async with process(partner, new_user()):
                pass


class TestException:
    async def test_before_a_report_releases(self, partner: ZaazClient, served: Served) -> None:
        user_id = await served.new_wallet(CREDIT)
        with pytest.raises(BrokeError):
            async with process(partner, user_id):
                raise BrokeError
        entry = (await served.transactions(user_id))[-1]
        assert (entry.reason, await balance(partner, user_id)) == ("BrokeError", (CREDIT, 0))

    async def test_after_a_report_bills(self, partner: ZaazClient, served: Served) -> None:
        user_id = await served.new_wallet(CREDIT)
        use = process(partner, user_id)
        with pytest.raises(BrokeError):
            await broken(use, **USED)
        assert use.charge is not None
        assert await balance(partner, user_id) == (CREDIT - HELD_MICROS // 2, 0)

    async def test_is_what_the_caller_sees_when_settling_fails(
        self, partner: ZaazClient, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        user_id = await served.new_wallet(CREDIT)
        Losing(partner, "CaptureHold", Unavailable("gone"), 1_000)
        settings = CreditProcessSettings(settle_timeout_seconds=0.1)
        use = process(partner, user_id, settings=settings)
        with pytest.raises(BrokeError) as caught:
            await broken(use, **USED)
        assert use.hold.id in caught.value.__notes__[0]
        assert f"hold {use.hold.id} could not be settled" in caplog.text

    async def test_after_the_hold_has_ended(self, partner: ZaazClient, served: Served) -> None:
        user_id = await served.new_wallet(CREDIT)
        with pytest.raises(BrokeError) as caught:
            async with process(partner, user_id) as use:
                await broken_after(release(partner, use.hold.id))
        assert not hasattr(caught.value, "__notes__")


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


class TestLostAnswers:
    @pytest.mark.parametrize("method", ["AuthorizeUsage", "CaptureHold"])
    @pytest.mark.parametrize("error", [Unavailable("gone"), Contention("again")])
    async def test_are_asked_for_again(
        self, partner: ZaazClient, served: Served, method: str, error: Exception
    ) -> None:
        user_id = await served.new_wallet(CREDIT)
        lost = Losing(partner, method, error, 2)
        async with process(partner, user_id) as use:
            use.report(**USED)
        assert lost.calls == 3
        assert use.charge is not None
        assert use.charge.cost_micros == HELD_MICROS // 2
        assert await balance(partner, user_id) == (CREDIT - HELD_MICROS // 2, 0)
        assert len(await served.transactions(user_id)) == 3

    async def test_not_for_ever(self, partner: ZaazClient, served: Served) -> None:
        user_id = await served.new_wallet(CREDIT)
        Losing(partner, "CaptureHold", Unavailable("gone"), 1_000)
        settings = CreditProcessSettings(settle_timeout_seconds=0.3)
        with pytest.raises(Unavailable, match="gone"):
            async with process(partner, user_id, settings=settings) as use:
                use.report(**USED)


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


async def broken(use: CreditProcess, **used: int) -> None:
    async with use:
        use.report(**used)
        raise BrokeError


async def broken_after(work: Awaitable[None]) -> None:
    await work
    raise BrokeError


async def release(client: ZaazClient, hold_id: str) -> None:
    request = pb.ReleaseHoldRequest(request_id=f"r-{hold_id}", hold_id=hold_id)
    await client.process.ReleaseHold(request)


async def started(
    client: ZaazClient, user_id: str, cancel_timeout_seconds: float
) -> tuple[asyncio.Task[None], CreditProcess]:
    """A task that waits for ever in a block, and its process."""
    inside: asyncio.Future[CreditProcess] = asyncio.Future()
    settings = CreditProcessSettings(cancel_timeout_seconds=cancel_timeout_seconds)

    async def work() -> None:
        async with process(client, user_id, settings=settings) as use:
            inside.set_result(use)
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    return task, await soon(inside)


class Answers:
    """Holds the answers of a method back, or the calls of it, until `go_on`."""

    def __init__(self, client: ZaazClient, method: str, before: bool = False) -> None:
        self.arrived, self.go_on = asyncio.Event(), asyncio.Event()
        self._before = before
        self._call = getattr(client.process, method)
        setattr(client.process, method, self._answer)

    async def _answer(self, *arguments: Any, **options: Any) -> Any:
        answer = None if self._before else await self._call(*arguments, **options)
        self.arrived.set()
        await self.go_on.wait()
        return await self._call(*arguments, **options) if self._before else answer


class Losing:
    """Loses the first answers of a method: what they tell of has happened."""

    def __init__(self, client: ZaazClient, method: str, error: Exception, count: int) -> None:
        self.calls = 0
        self._error, self._count = error, count
        self._call = getattr(client.process, method)
        setattr(client.process, method, self._answer)

    async def _answer(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        answer = await self._call(*arguments, **options)
        if self.calls <= self._count:
            raise self._error
        return answer


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "zaaz_client")
