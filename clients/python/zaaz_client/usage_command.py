"""`zaaz usage rejected`: list, replay, discard."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final, TypeVar
from uuid import uuid4

import click
from zaaz.credits.v1.usage_service_pb2 import (
    DiscardRejectedUsageRequest,
    ListRejectedUsageRequest,
    RecordUsageResult,
    RejectedUsage,
    ReplayRejectedUsageRequest,
)

from zaaz_client.asking import (
    PATIENCE_SECONDS,
    Refused,
    as_dict,
    ask,
    asking,
    check_id,
    progress,
    show,
    time_text,
)
from zaaz_client.client import ZaazClient
from zaaz_client.command_line import BadUsage
from zaaz_client.listing import limited, listing
from zaaz_client.lists import iterate
from zaaz_client.retry import retry_within
from zaaz_client.statements.formats import credits_text
from zaaz_client.status import from_status

BATCH_IDS: Final = 1_000
"""In one call."""
MAX_REJECTED: Final = 100_000
"""What the server keeps for a client."""
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
        return _listed(client, user, most)

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

    async def work(client: ZaazClient) -> dict[str, RecordUsageResult]:
        return await _replay(client, ids, user)

    found = ask(work, target, given_key, _WRITE)
    refused = {id_: one for id_, one in found.items() if one.HasField("error")}
    if as_json:
        for id_, one in found.items():
            click.echo(json.dumps({"id": id_, **as_dict(one)}))
    else:
        _show_replayed(found, refused)
    if refused:
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

    async def work(client: ZaazClient) -> int:
        return await _discard(client, ids, user)

    count = ask(work, target, given_key, _WRITE)
    click.echo(json.dumps({"discarded": count}) if as_json else f"Discarded {count:,}.")


def _check_choice(ids: tuple[str, ...], all_: bool, user: str) -> None:
    if bool(ids) == all_:
        raise BadUsage("Name one ID or more (`zaaz usage rejected list`), or give --all.")
    if ids and user:
        raise BadUsage("--user goes with --all.")


def _listed(client: ZaazClient, user: str, limit: int | None) -> AsyncIterator[RejectedUsage]:
    request = ListRejectedUsageRequest(user_id=user)
    method = client.usage.ListRejectedUsage
    return iterate(method, request, limit=limit, retry_seconds=PATIENCE_SECONDS)


async def _chosen(client: ZaazClient, ids: Sequence[str], user: str) -> list[str]:
    if ids:
        return list(dict.fromkeys(ids))
    # Read whole before any is taken away: pages go by what is there.
    with progress() as bar:
        task = bar.add_task("found", total=None)
        found = []
        async for one in _listed(client, user, MAX_REJECTED):
            found.append(one.id)
            bar.advance(task)
    return found


async def _replay(
    client: ZaazClient, ids: Sequence[str], user: str
) -> dict[str, RecordUsageResult]:
    results: dict[str, RecordUsageResult] = {}
    chosen = await _chosen(client, ids, user)
    with progress() as bar:
        task = bar.add_task("replayed", total=len(chosen))
        for batch in _batches(chosen):
            request = ReplayRejectedUsageRequest(ids=batch, request_id=uuid4().hex)
            method = client.usage.ReplayRejectedUsage
            answer = await retry_within(method, request, PATIENCE_SECONDS)
            results |= zip(batch, answer.results, strict=True)
            bar.advance(task, len(batch))
    return results


async def _discard(client: ZaazClient, ids: Sequence[str], user: str) -> int:
    count = 0
    chosen = await _chosen(client, ids, user)
    with progress() as bar:
        task = bar.add_task("discarded", total=len(chosen))
        for batch in _batches(chosen):
            request = DiscardRejectedUsageRequest(ids=batch, request_id=uuid4().hex)
            method = client.usage.DiscardRejectedUsage
            count += (await retry_within(method, request, PATIENCE_SECONDS)).discarded
            bar.advance(task, len(batch))
    return count


def _batches(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), BATCH_IDS):
        yield ids[start : start + BATCH_IDS]


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


def _show_replayed(
    found: dict[str, RecordUsageResult], refused: dict[str, RecordUsageResult]
) -> None:
    if refused:
        rows = [(id_, str(from_status(one.error.error))) for id_, one in refused.items()]
        show(("id", "refused again"), rows[:MAX_SHOWN])
        if len(rows) > MAX_SHOWN:
            click.echo(f"and {len(rows) - MAX_SHOWN:,} more; --json shows all")
    cost = sum(one.receipt.credits_micros for one in found.values())
    billed = len(found) - len(refused)
    click.echo(f"Billed {billed:,} of {len(found):,}: {credits_text(cost)} credits.")
