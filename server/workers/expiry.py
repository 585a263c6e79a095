"""Writes what became due of wallets that nobody touches, and tells of what soon will."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from bson import ObjectId

from server.kernel.clock import DAY_MS, Clock
from server.kernel.errors import DomainError
from server.ledger.alerts import Alert, AlertKind
from server.ledger.model import Grant, Wallet
from server.ledger.reader import LedgerReader
from server.mongo.errors import DatabaseUnavailable
from server.workers.lease import Lease

SWEEP_SECONDS = 1.0
"""How late an idle wallet's expiry is written. What is read is right at once."""

NOTICE_MS = 3_600_000
"""How often wallets are looked through for credits that soon expire."""

PAGE_WALLETS = 500

_log = logging.getLogger(__name__)


class Tidier(Protocol):
    """The ledger, as far as this worker knows it."""

    async def tidy(self, user_id: str) -> None:
        """Writes what has become due of a wallet."""


class Announcer(Protocol):
    """Where alerts go."""

    async def announce(self, alerts: Sequence[Alert]) -> None:
        """Tells those that were not told before."""


class ExpiryWorker:
    """Leased, so that one process does it; run twice, everything still happens once."""

    def __init__(
        self,
        ledger: Tidier,
        reader: LedgerReader,
        alerts: Announcer,
        lease: Lease,
        clock: Clock,
        notice_days: Sequence[int],
    ) -> None:
        self._ledger = ledger
        self._reader = reader
        self._alerts = alerts
        self._lease = lease
        self._clock = clock
        self._notice_days = sorted(notice_days)
        self._noticed_ms: int | None = None

    async def run(self) -> None:
        """Sweeps every second until cancelled, whatever a sweep comes to."""
        try:
            while True:
                await asyncio.sleep(SWEEP_SECONDS)
                try:
                    await self.sweep()
                except (DatabaseUnavailable, DomainError) as error:
                    _log.info("a sweep of expiries has to be done again: %s", error)
                except Exception:  # noqa: BLE001  the next sweep may succeed
                    _log.exception("a sweep of expiries failed")
        finally:
            try:
                await self._lease.give_up()
            except DatabaseUnavailable:
                _log.info("the expiry worker's lease has to run out by itself")

    async def sweep(self) -> None:
        """All that is due now, if the lease can be had."""
        if not await self._lease.hold():
            return
        await self._tidy()
        now_ms = self._clock()
        if self._notice_days and (
            self._noticed_ms is None or now_ms - self._noticed_ms >= NOTICE_MS
        ):
            await self.give_notice()
            self._noticed_ms = now_ms

    async def _tidy(self) -> None:
        after: ObjectId | None = None
        while True:
            page = await self._reader.due(self._clock(), after, PAGE_WALLETS)
            await asyncio.gather(*(self._try_to_tidy(wallet.user_id) for wallet in page))
            if len(page) < PAGE_WALLETS or not await self._lease.hold():
                return
            after = page[-1].id

    async def _try_to_tidy(self, user_id: str) -> None:
        """One that cannot be written now is due at the next sweep as well, and stops no other."""
        try:
            await self._ledger.tidy(user_id)
        except DomainError as error:
            fields = {"user_id": user_id, "reason": error.reason.value}
            _log.info("a wallet's expiries have to wait", extra={"fields": fields})

    async def give_notice(self) -> None:
        """Tells of what ends within some days, going on where a last holder stopped."""
        now_ms = self._clock()
        until_ms = now_ms + self._notice_days[-1] * DAY_MS
        after = await self._lease.position()
        while True:
            page = await self._reader.expiring(now_ms, until_ms, after, PAGE_WALLETS)
            await self._alerts.announce(
                [alert for wallet in page for alert in self._notices(wallet, now_ms)]
            )
            after = page[-1].profile.id if len(page) == PAGE_WALLETS else None
            await self._lease.note(after)
            if after is None or not await self._lease.hold():
                return

    def _notices(self, wallet: Wallet, now_ms: int) -> list[Alert]:
        notices = [
            _notice(wallet, grant, days)
            for grant in wallet.grants
            if now_ms < grant.expires_ms
            and (days := self._days(grant.expires_ms - now_ms)) is not None
        ]
        ends_ms, subscription = wallet.profile.period_ends_ms, wallet.profile.subscription
        if subscription is not None and subscription.next is None and now_ms < ends_ms:
            days = self._days(ends_ms - now_ms)
            if days is not None:
                notices.append(_package_notice(wallet, ends_ms, days))
        return notices

    def _days(self, left_ms: int) -> int | None:
        """The nearest of the days of notice that it is within."""
        return next((days for days in self._notice_days if left_ms <= days * DAY_MS), None)


def _notice(wallet: Wallet, grant: Grant, days: int) -> Alert:
    return Alert(
        AlertKind.CREDITS_EXPIRING,
        wallet.profile.user_id,
        wallet.profile.id,
        wallet.sequence,
        grant.expires_ms,
        grant.remaining_micros,
        grant.id,
        days,
    )


def _package_notice(wallet: Wallet, ends_ms: int, days: int) -> Alert:
    profile = wallet.profile
    return Alert(
        AlertKind.PACKAGE_EXPIRING,
        profile.user_id,
        profile.id,
        wallet.sequence,
        ends_ms,
        0,
        days=days,
        package_id=profile.package_id,
    )
