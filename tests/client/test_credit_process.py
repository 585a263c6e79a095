"""`credit_process` against a real server: however its block ends, the hold ends rightly."""

import logging
import pickle

import pytest
from zaaz.ledger.v1.hold_pb2 import (
    HOLD_STATE_CAPTURED,
    HOLD_STATE_RELEASED,
)
from zaaz_client import (
    Contention,
    CreditProcessSettings,
    InsufficientCredits,
    NotAuthorized,
    Unavailable,
    UsageNotReported,
    WalletNotFound,
    ZaazClient,
)
from zaaz_client.resource_errors import FeatureEndpointInactive, WordLimitExceeded

from tests.catalog.calls import new_endpoint
from tests.client.processes import (
    CREDIT,
    USED,
    BrokeError,
    Losing,
    balance,
    broken,
    broken_after,
    hold_of,
    process,
    release,
)
from tests.holds.conftest import HELD_MICROS
from tests.serving import (
    Served,
    new_user,
)


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
        assert use.cost_micros == use.charge.cost_micros == HELD_MICROS // 2
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
        assert (use.charge, use.cost_micros) == (None, 0)
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


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "zaaz_client")
