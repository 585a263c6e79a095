"""How a run is shown: progress while it goes, a table or JSON at its end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from zaaz_client.command.asking import is_watched
from zaaz_client.replay.runner import Outcome

_MICROS: Final = 1_000_000


class ProgressDisplay:
    """A progress bar on a terminal; nothing elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator["_Bar"]:
        """A bar of its own for each part of the run."""
        columns = (
            TextColumn("{task.description:20}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[yellow]{task.fields[note]}"),
        )
        hidden = not is_watched()
        with Progress(*columns, console=self._console, disable=hidden) as progress:
            task = progress.add_task(name, total=total, completed=done, note="")
            yield _Bar(progress, task)


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def at(self, done: int, note: str = "") -> None:
        """So many steps are done."""
        self._progress.update(self._task, completed=done, note=note)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The report as one JSON object; amounts are integers in micro-credits."""
    plan, delivery, books = outcome.plan, outcome.delivery, outcome.books
    counters = delivery.counters
    return {
        "ok": outcome.agrees,
        "run": plan.run_id,
        "model": plan.parameters.model,
        "users": len(plan.user_ids),
        "events": {
            "sent": plan.events,
            "acknowledged": delivery.acknowledged,
            "billed": books.events_billed,
            "usages": books.usages,
        },
        "this_process": {
            "resumed_at": delivery.resumed_at,
            "sent": counters.sent,
            "acknowledged": counters.acknowledged,
            "billed": counters.billed,
            "duplicates": counters.duplicates,
            "refused": counters.refused,
            "unreported": counters.unreported,
            "reopened": counters.reopened,
            "seconds": round(delivery.seconds, 3),
            "events_per_second": round(_pace(outcome), 1),
        },
        "credits_micros": {
            "granted": books.granted_micros,
            "charged": books.charged_micros,
            "decreased": books.decreased_micros,
            "shortfall": books.shortfall_micros,
            "balance": books.balance_micros,
        },
        "wallets_sound": books.sound_wallets,
        "refusals": dict(delivery.refusals),
        "checks": dict(outcome.checks()),
        "differences": books.differences,
        "difference_count": books.difference_count,
    }


def show_table(outcome: Outcome, console: Console) -> None:
    """The report for people."""
    plan, delivery, books = outcome.plan, outcome.delivery, outcome.books
    table = Table(title=f"Run {plan.run_id}", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_row("Events sent", f"{plan.events:,}")
    table.add_row("acknowledged", f"{delivery.acknowledged:,}")
    table.add_row("billed", f"{books.events_billed:,}")
    table.add_section()
    table.add_row("Credits granted", _credits(books.granted_micros))
    table.add_row("charged for usage", _credits(books.charged_micros))
    table.add_row("taken from wallets", _credits(books.decreased_micros))
    table.add_row("short", _credits(books.shortfall_micros))
    table.add_row("left", _credits(books.balance_micros))
    table.add_section()
    table.add_row("Time", f"{delivery.seconds:,.1f} s")
    table.add_row("Events per second", f"{_pace(outcome):,.0f}")
    table.add_row("Stream reopened", f"{delivery.counters.reopened:,} times")
    table.add_section()
    for name, holds in outcome.checks():
        table.add_row(name, "[green]yes" if holds else "[bold red]NO")
    console.print(table)


def _pace(outcome: Outcome) -> float:
    delivery = outcome.delivery
    return delivery.counters.acknowledged / delivery.seconds if delivery.seconds else 0.0


def _credits(micros: int) -> str:
    whole, part = divmod(abs(micros), _MICROS)
    return f"{'-' if micros < 0 else ''}{whole:,}.{part:06d}"
