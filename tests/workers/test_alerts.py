"""Alerts: what a wallet's user should know, once, through ListWalletAlerts."""

import pytest
from zaaz.ledger.v1 import wallet_alert_pb2

from server.kernel.clock import DAY_MS
from server.wallet.alerts import WalletAlerts
from tests.conftest import MongoClient
from tests.holds.conftest import HELD_MICROS, Holder
from tests.ledger.calls import at, refused
from tests.serving import ManualClock, Served, new_key, serving, usage_event
from tests.workers.alerts import (
    EXHAUSTED,
    EXPIRED,
    EXPIRING,
    LOW,
    alerts_of,
    page_of_alerts,
    set_threshold,
    settled,
    until_alerts,
)

HOUR_MS = DAY_MS // 24


class TestLowBalance:
    async def test_once_a_crossing_and_again_after_credits_came_in(self, served: Served) -> None:
        user_id = await served.new_wallet(1_000)
        await set_threshold(served, user_id, 500)
        await served.consume(user_id, 500)
        await served.consume(user_id, 1)
        await served.consume(user_id, 9)
        first = (await served.transactions(user_id))[2]
        await settled(served)
        (low,) = await alerts_of(served, user_id)
        assert (low.kind, low.credits_micros, low.sequence) == (LOW, 499, first.sequence)
        assert (low.user_id, low.user_wallet_id) == (user_id, (await served.wallet(user_id)).id)
        assert low.expires_time.seconds - low.time.seconds >= 89 * 86_400
        await served.grant(user_id, 500)
        await served.consume(user_id, 500)
        found = await until_alerts(served, user_id, 2)
        assert [alert.kind for alert in found] == [LOW, LOW]
        assert len({alert.id for alert in found}) == 2
        # A top-up that does not reach the line arms nothing.
        await served.grant(user_id, 1)
        await served.consume(user_id, 1)
        await settled(served)
        assert len(await alerts_of(served, user_id)) == 2

    async def test_by_usage_and_captures(self, served: Served) -> None:
        holder = Holder(served)
        by_usage, by_capture, by_hold = [await served.new_wallet(2 * HELD_MICROS) for _ in range(3)]
        for user_id in (by_usage, by_capture, by_hold):
            await set_threshold(served, user_id, 2 * HELD_MICROS)
        await served.record(usage_event(by_usage))
        await holder.capture((await holder.place(by_capture)).id)
        # Credits that are held are there still.
        await holder.place(by_hold)
        for user_id in (by_usage, by_capture):
            (low,) = await until_alerts(served, user_id, 1)
            assert (low.kind, low.credits_micros) == (LOW, HELD_MICROS)
        await settled(served)
        assert await alerts_of(served, by_hold) == []

    async def test_a_line_that_is_raised_above_the_balance(self, served: Served) -> None:
        user_id = await served.new_wallet(100)
        await set_threshold(served, user_id, 101)
        (low,) = await until_alerts(served, user_id, 1)
        assert (low.kind, low.credits_micros) == (LOW, 100)

    async def test_no_line_no_alert(self, served: Served) -> None:
        user_id = await served.new_wallet(100)
        await served.consume(user_id, 99)
        await settled(served)
        assert await alerts_of(served, user_id) == []


class TestExhausted:
    async def test_with_the_last_credit_and_again_after_a_top_up(self, served: Served) -> None:
        user_id = await served.new_wallet(10)
        await served.consume(user_id, 10)
        await served.record(usage_event(user_id))
        await served.grant(user_id, 5)
        await served.record(usage_event(user_id))
        found = await until_alerts(served, user_id, 2)
        assert [(alert.kind, alert.credits_micros) for alert in found] == [(EXHAUSTED, 0)] * 2
        await settled(served)
        assert len(await alerts_of(served, user_id)) == 2

    async def test_beside_a_low_balance(self, served: Served) -> None:
        user_id = await served.new_wallet(10)
        await set_threshold(served, user_id, 5)
        await served.consume(user_id, 10)
        found = await until_alerts(served, user_id, 2)
        assert {alert.kind for alert in found} == {LOW, EXHAUSTED}


class TestExpiry:
    async def test_of_credits_of_an_idle_wallet(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet(7)
        expires_ms = manual_clock() + 1_000
        granted = await clocked.grant(user_id, 40, expires_time=at(expires_ms))
        manual_clock.advance(5_000)
        (expired,) = await until_alerts(clocked, user_id, 1)
        assert (expired.kind, expired.credits_micros) == (EXPIRED, 40)
        assert expired.grant_id == granted.transaction.id
        assert expired.time == at(expires_ms)
        await clocked.assert_sound(user_id)

    async def test_of_what_was_left_when_someone_asked_first(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        user_id = await clocked.new_wallet()
        await clocked.grant(user_id, 40, expires_time=at(manual_clock() + 1_000), priority=2)
        await clocked.grant(user_id, 50, expires_time=at(manual_clock() + 2_000), priority=1)
        await clocked.consume(user_id, 50)
        manual_clock.advance(5_000)
        await clocked.grant(user_id, 1)
        found = await until_alerts(clocked, user_id, 1)
        await settled(clocked)
        assert await alerts_of(clocked, user_id) == found
        assert [(one.kind, one.credits_micros) for one in found] == [(EXPIRED, 40)]

    async def test_ahead_once_for_each_day_of_notice(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        """Settings say 7 days and 1 day."""
        user_id = await clocked.new_wallet(3)
        expires_ms = manual_clock() + 10 * DAY_MS
        await clocked.grant(user_id, 40, expires_time=at(expires_ms))
        await self._noticed(clocked, manual_clock)
        assert await alerts_of(clocked, user_id) == []
        for _ in range(3):
            manual_clock.advance(2 * DAY_MS)
            await self._noticed(clocked, manual_clock)
        (soon,) = await alerts_of(clocked, user_id)
        assert (soon.kind, soon.days, soon.credits_micros) == (EXPIRING, 7, 40)
        assert soon.time == at(expires_ms)
        manual_clock.advance(expires_ms - manual_clock() - DAY_MS + 1)
        for _ in range(2):
            await self._noticed(clocked, manual_clock)
        found = await alerts_of(clocked, user_id)
        assert sorted(alert.days for alert in found) == [1, 7]
        manual_clock.advance(DAY_MS)
        found = await until_alerts(clocked, user_id, 3)
        assert {alert.kind for alert in found} == {EXPIRING, EXPIRED}

    async def _noticed(self, served: Served, clock: ManualClock) -> None:
        """A round of notices that began just now has been made."""
        marker = await served.new_wallet()
        await served.grant(marker, 1, expires_time=at(clock() + DAY_MS))
        clock.advance(HOUR_MS)
        await until_alerts(served, marker, 1)


class TestList:
    async def test_newest_first_page_by_page(
        self, mongo_url: str, mongo_client: MongoClient
    ) -> None:
        name = f"test_{new_key()[:16]}"
        async with serving(mongo_url, name) as served:
            users = [await served.new_wallet(2) for _ in range(4)]
            for user_id in users:
                await served.consume(user_id, 2)
                await until_alerts(served, user_id, 1)
            await served.grant(users[0], 2)
            await served.consume(users[0], 2)
            await until_alerts(served, users[0], 2)
            seen: list[wallet_alert_pb2.WalletAlert] = []
            token = ""
            while True:
                page = await page_of_alerts(served, size=2, token=token)
                assert len(page.wallet_alerts) <= 2
                seen += page.wallet_alerts
                token = page.next_page_token
                if not token:
                    break
            assert len(seen) == len({alert.id for alert in seen}) == 5
            assert {alert.user_id for alert in seen} == set(users)
            times = [alert.time.ToMilliseconds() for alert in seen]
            assert times == sorted(times, reverse=True)
            mine = await page_of_alerts(served, users[0], size=1)
            assert [alert.user_id for alert in mine.wallet_alerts] == [users[0]]
            with refused("PAGE_TOKEN_INVALID"):
                await page_of_alerts(served, users[1], token=mine.next_page_token)
        await mongo_client.drop_database(name)

    async def test_alerts_are_kept_once_though_they_come_twice(
        self, mongo_url: str, mongo_client: MongoClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The consumer dies after its work: whoever takes over does it again."""
        name = f"test_{new_key()[:16]}"
        handle, times = WalletAlerts.handle, 0

        async def failing(self: WalletAlerts, message: object) -> None:
            nonlocal times
            times += 1
            await handle(self, message)  # type: ignore[arg-type]
            if times == 1:
                raise RuntimeError("the end came too early")

        monkeypatch.setattr(WalletAlerts, "handle", failing)
        async with serving(mongo_url, name) as served:
            user_id = await served.new_wallet(2)
            await served.consume(user_id, 2)
            await until_alerts(served, user_id, 1)
            await settled(served)
        async with serving(mongo_url, name) as served:
            await settled(served)
            assert len(await alerts_of(served, user_id)) == 1
        await mongo_client.drop_database(name)
