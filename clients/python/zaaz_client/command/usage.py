"""`zaaz usage rejected`: list, replay, discard."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar

import click
from zaaz.credits.v1.usage_service_pb2 import (
    RecordUsageResult,
    RejectedUsage,
)

from zaaz_client.client import ZaazClient
from zaaz_client.command.asking import (
    Refused,
    as_dict,
    ask,
    asking,
    check_id,
    is_piped,
    progress,
    show,
    time_text,
)
from zaaz_client.command.line import BadUsage, Failure
from zaaz_client.command.listing import limited, listing
from zaaz_client.command.rejected_usage import chosen_ids, discard_batches, listed, replay_batches
from zaaz_client.statements.formats import credits_text
from zaaz_client.status import from_status

MAX_SHOWN: Final = 200
"""Refusals in a table; --json has all of them."""

_READ: Final = "usage.read or admin"
_WRITE: Final = "usage.write (and usage.read for --all) or admin"
_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group()
def usage() -> None:
    """Metered usage."""


@usage.group()
def rejected() -> None:
    """Usage that could not be billed: kept for 30 days, to be replayed or discarded."""


_user = click.option(
    "--user", default="", metavar="USER", callback=check_id, help="Only this one's."
)


def _choosing(command: _Command) -> _Command:
    """Which are meant: some by their ids, or all."""
    for add in (
        _user,
        click.option("--all", "all_", is_flag=True, help="All that are kept."),
        click.argument("ids", metavar="[ID]...", nargs=-1, callback=check_id),
    ):
        command = add(command)
    return command


@rejected.command("list")
@_user
@limited
@asking
def list_(user: str, limit: int, target: str, given_key: str | None, as_json: bool) -> None:
    """List rejected usage and why it was, oldest first.

    With --json, one a line. Exit codes: 0 listed; 1 refused; 2 wrong options or
    key; 3 no server.
    """

    def rows(client: ZaazClient, most: int | None) -> AsyncIterator[RejectedUsage]:
        return listed(client, user, most)

    found = listing(rows, limit, as_json, target, given_key, _READ)
    columns = ("id", "user", "usage key", "model or endpoint", "why", "refused", "forgotten")
    if found is not None:
        show(columns, map(_row, found))


@rejected.command()
@_choosing
@asking
def replay(
    ids: tuple[str, ...],
    all_: bool,
    user: str,
    target: str,
    given_key: str | None,
    as_json: bool,
) -> None:
    """Try to bill rejected usage again, as once its wallet or price exists.

    Each is billed once, however often it is replayed. With --json, one a line.

    Exit codes: 0 all were billed; 1 some were refused again, or the server
    refused; 2 wrong options or key; 3 no server.
    """
    _check_choice(ids, all_, user)

    found: dict[str, RecordUsageResult] = {}

    def take(batch: dict[str, RecordUsageResult]) -> None:
        found.update(batch)
        if as_json:
            for id_, one in batch.items():
                click.echo(json.dumps({"id": id_, **as_dict(one)}))

    async def work(client: ZaazClient) -> None:
        chosen = await chosen_ids(client, ids, user)
        with progress(is_piped() or not as_json) as bar:
            await replay_batches(client, chosen, take, bar)

    try:
        ask(work, target, given_key, _WRITE)
    except Failure:  # of a later batch: those before it are billed
        if found and not as_json:
            _show_replayed(found)
        raise
    if not as_json:
        _show_replayed(found)
    if refused := _refused(found):
        raise Refused(f"{len(refused):,} of {len(found):,} were refused again.")


@rejected.command()
@_choosing
@click.option("--yes", is_flag=True, help="Discard without asking.")
@asking
def discard(
    ids: tuple[str, ...],
    all_: bool,
    user: str,
    yes: bool,
    target: str,
    given_key: str | None,
    as_json: bool,
) -> None:
    """Give rejected usage up: it will never be billed.

    Exit codes: 0 discarded; 1 refused, or not confirmed; 2 wrong options or
    key; 3 no server.
    """
    _check_choice(ids, all_, user)
    if as_json and not yes:
        raise BadUsage("With --json nothing is asked: give --yes too.")
    if not yes:
        what = f"these {len(ids):,}" if ids else "all"
        click.confirm(f"Discard {what}? They will never be billed.", abort=True)

    counts: list[int] = []

    async def work(client: ZaazClient) -> None:
        chosen = await chosen_ids(client, ids, user)
        with progress() as bar:
            await discard_batches(client, chosen, counts.append, bar)

    def tell() -> None:
        count = sum(counts)
        click.echo(json.dumps({"discarded": count}) if as_json else f"Discarded {count:,}.")

    try:
        ask(work, target, given_key, _WRITE)
    except Failure:  # of a later batch: those before it are gone
        if counts:
            tell()
        raise
    tell()


def _check_choice(ids: tuple[str, ...], all_: bool, user: str) -> None:
    if bool(ids) == all_:
        raise BadUsage("Name one ID or more (`zaaz usage rejected list`), or give --all.")
    if ids and user:
        raise BadUsage("--user goes with --all.")


def _row(one: RejectedUsage) -> tuple[str, ...]:
    return (
        one.id,
        one.event.user_id,
        one.event.usage_key,
        one.event.ai_model or one.event.feature_endpoint,
        str(from_status(one.error)),
        time_text(one.created_time),
        time_text(one.expires_time),
    )


def _refused(found: dict[str, RecordUsageResult]) -> dict[str, RecordUsageResult]:
    return {id_: one for id_, one in found.items() if one.HasField("error")}


def _show_replayed(found: dict[str, RecordUsageResult]) -> None:
    refused = _refused(found)
    if refused:
        rows = [(id_, str(from_status(one.error.error))) for id_, one in refused.items()]
        show(("id", "refused again"), rows[:MAX_SHOWN])
        if len(rows) > MAX_SHOWN:
            click.echo(f"and {len(rows) - MAX_SHOWN:,} more; --json shows all")
    cost = sum(one.receipt.credits_micros for one in found.values())
    billed = len(found) - len(refused)
    click.echo(f"Billed {billed:,} of {len(found):,}: {credits_text(cost)} credits.")
