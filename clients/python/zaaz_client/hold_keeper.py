"""Keeps a hold alive while the work that it is for goes on."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration
from zaaz.credits.v1.credits_process_service_pb2 import ExtendHoldRequest, HoldUsage
from zaaz.ledger.v1.hold_pb2 import DISCONNECT_POLICY_CAPTURE_REPORTED, Hold

from zaaz_client.errors import ZaazError
from zaaz_client.retry import retry_within
from zaaz_client.winding_up import end

if TYPE_CHECKING:
    from zaaz.credits.v1.credits_process_service_pb2_grpc import CreditsProcessServiceAsyncStub

MIN_TICK_SECONDS: Final = 0.1

_log = logging.getLogger("zaaz_client")


class HoldKeeper:
    """Extends a hold by its own time before half of it is over, for `max_seconds` at most.

    Under CAPTURE_REPORTED it tells the server what was reported too, every
    `report_interval_seconds` that something new was: should this process die,
    that is billed. `reported` says what was reported so far.
    """

    def __init__(
        self,
        stub: "CreditsProcessServiceAsyncStub",
        hold: Hold,
        reported: Callable[[], HoldUsage | None],
        *,
        report_interval_seconds: float,
        max_seconds: float,
    ) -> None:
        self._stub = stub
        self._hold = hold
        self._reported = reported
        self._max_seconds = max_seconds
        # By the server's clock at both ends: this machine's may differ.
        lives_ms = hold.expires_time.ToMilliseconds() - hold.created_time.ToMilliseconds()
        self._ttl = Duration()
        self._ttl.FromMilliseconds(lives_ms)
        self._ttl_seconds = lives_ms / 1000
        self._tells = hold.disconnect_policy == DISCONNECT_POLICY_CAPTURE_REPORTED
        tick = self._ttl_seconds / 3
        if self._tells:
            tick = min(tick, report_interval_seconds)
        self._tick_seconds = max(tick, MIN_TICK_SECONDS)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in a task."""
        self._task = asyncio.create_task(self._keep(), name=f"zaaz hold {self._hold.id}")

    async def stop(self) -> None:
        """End. What is on its way may still be done; it does no harm to a hold that has ended."""
        if self._task is not None:
            await end(self._task)

    async def _keep(self) -> None:
        try:
            await self._extend_in_time()
        except ZaazError as error:
            _log.warning(
                "hold %s will end by itself, it cannot be extended: %s", self.hold_id, error
            )

    @property
    def hold_id(self) -> str:
        """Whose time it is."""
        return self._hold.id

    async def _extend_in_time(self) -> None:
        began = extended = time.monotonic()
        told: HoldUsage | None = None
        while time.monotonic() - began < self._max_seconds:
            await asyncio.sleep(self._tick_seconds)
            reported = self._reported() if self._tells else None
            now = time.monotonic()
            is_due = now - extended + self._tick_seconds > self._ttl_seconds / 2
            if is_due or reported != told:
                await self._extend(reported, extended + self._ttl_seconds - now)
                extended, told = now, reported
        _log.warning("hold %s was extended for as long as it may be", self.hold_id)

    async def _extend(self, reported: HoldUsage | None, limit_seconds: float) -> None:
        request = ExtendHoldRequest(
            request_id=uuid4().hex, hold_id=self.hold_id, ttl=self._ttl, reported=reported
        )
        await retry_within(self._stub.ExtendHold, request, limit_seconds)
