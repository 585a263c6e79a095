"""Runs a plan: wallets, events, books."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol

from zaaz_client.client import ZaazClient
from zaaz_client.replay.plan import Plan, PlanError
from zaaz_client.replay.reconcile import Books, read_books
from zaaz_client.replay.wallets import fund_wallets
from zaaz_client.usage_results import RejectedEvent, UsageCounters
from zaaz_client.usage_settings import UsageStreamSettings
from zaaz_client.usage_stream import UsageStream

FIRST_CONTACT_SECONDS: Final = 10.0
"""A server that is meant to be there answers sooner."""
MAX_BACKOFF_SECONDS: Final = 1.0
"""Somebody is watching, and a restart takes a few seconds."""
_BATCH_EVENTS: Final = 500
_TICK_SECONDS: Final = 0.1


class Display(Protocol):
    """Shows how far a run is."""

    def stage(self, name: str, total: int, done: int = 0) -> AbstractContextManager["Stage"]:
        """A part of the run with `total` steps."""


class Stage(Protocol):
    """One part of a run."""

    def at(self, done: int, note: str = "") -> None:
        """So many steps are done."""


@dataclass(slots=True)
class Delivery:
    """How the events went out. All but `acknowledged` of this process only."""

    resumed_at: int = 0
    acknowledged: int = 0
    """Of the whole run."""
    seconds: float = 0.0
    counters: UsageCounters = field(default_factory=UsageCounters)
    refusals: Counter[str] = field(default_factory=Counter)
    """Refused events by reason."""
    first_refusal: str = ""

    def refuse(self, rejected: RejectedEvent) -> None:
        """Note a refused event."""
        self.refusals[rejected.error.reason or rejected.error.code.name] += 1
        self.first_refusal = self.first_refusal or str(rejected.error)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did and what the server says of it."""

    plan: Plan
    delivery: Delivery
    books: Books

    @property
    def agrees(self) -> bool:
        """Events sent = acknowledged = billed, charges = decreases, all wallets sound."""
        return all(holds for _, holds in self.checks())

    def checks(self) -> list[tuple[str, bool]]:
        """What has to agree, and whether it does."""
        books, events = self.books, self.plan.events
        paid = books.decreased_micros + books.shortfall_micros
        spent = books.granted_micros - books.balance_micros
        return [
            ("no event refused", not self.delivery.refusals),
            ("events sent = acknowledged", self.delivery.acknowledged == events),
            ("events sent = billed, each once", books.events_billed == books.usages == events),
            ("charges = decreases + shortfalls", books.charged_micros == paid),
            ("decreases = granted - balance", books.decreased_micros == spent),
            ("every wallet agrees", books.sound_wallets == len(self.plan.user_ids)),
        ]


async def run_plan(
    client: ZaazClient,
    plan: Plan,
    display: Display,
    *,
    rate: float | None = None,
    patience_seconds: float,
) -> Outcome:
    """Do what of the plan is not done yet, and reconcile all of it.

    `rate` bounds events per second; the server may be away for `patience_seconds`.
    """
    users = len(plan.user_ids)
    with display.stage("Funding wallets", users) as stage:
        await fund_wallets(client, plan, patience_seconds, _counting(stage))
    delivery = Delivery()
    with display.stage("Sending events", plan.events) as stage:
        await _deliver(client, plan, delivery, stage, rate, patience_seconds)
    with display.stage("Reconciling wallets", users) as stage:
        books = await read_books(client, plan, patience_seconds, _counting(stage))
    return Outcome(plan, delivery, books)


def _counting(stage: Stage) -> Callable[[], None]:
    count = 0

    def done() -> None:
        nonlocal count
        count += 1
        stage.at(count)

    return done


async def _deliver(
    client: ZaazClient,
    plan: Plan,
    delivery: Delivery,
    stage: Stage,
    rate: float | None,
    patience_seconds: float,
) -> None:
    settings = UsageStreamSettings(
        open_timeout_seconds=patience_seconds,
        stall_timeout_seconds=patience_seconds,
        max_backoff_seconds=MAX_BACKOFF_SECONDS,
    )
    stream = client.usage_stream(plan.writer_id, on_rejected=delivery.refuse, settings=settings)
    delivery.counters = stream.counters
    began = time.monotonic()
    async with stream:
        delivery.resumed_at = stream.next_offset
        _check_start(plan, stream.next_offset)
        showing = asyncio.create_task(_show(stream, stage))
        try:
            await _send(stream, plan, rate)
            await stream.flush()
        finally:
            showing.cancel()
    stage.at(stream.acknowledged_offset)
    delivery.acknowledged = stream.acknowledged_offset
    delivery.seconds = time.monotonic() - began


def _check_start(plan: Plan, sent: int) -> None:
    if sent > plan.events:
        raise PlanError(
            f"run {plan.run_id} has sent {sent:,} events already, more than --events {plan.events}"
        )


async def _send(stream: UsageStream, plan: Plan, rate: float | None) -> None:
    due = time.monotonic()
    for first in range(stream.next_offset, plan.events, _BATCH_EVENTS):
        batch = range(first, min(first + _BATCH_EVENTS, plan.events))
        if rate is None:
            await stream.send_many(map(plan.event, batch))
            continue
        for index in batch:
            early = due - time.monotonic()
            if early > 0:
                await asyncio.sleep(early)
            await stream.send(plan.event(index))
            # What an outage has delayed stays late: catching up would break the rate.
            due = max(due, time.monotonic() - _TICK_SECONDS) + 1 / rate


async def _show(stream: UsageStream, stage: Stage) -> None:
    while True:
        note = "" if stream.connected else "waiting for the server"
        stage.at(stream.acknowledged_offset, note)
        await asyncio.sleep(_TICK_SECONDS)
