"""How commands list: a bar while rows come, and a word about those that are left out."""

import json
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import click
from google.protobuf.message import Message

from zaaz_client.client import ZaazClient
from zaaz_client.command.asking import DEFAULT_LISTED, as_dict, ask, is_piped, progress

_Row = TypeVar("_Row", bound=Message)

limited = click.option(
    "--limit",
    type=click.IntRange(0),
    default=DEFAULT_LISTED,
    show_default=True,
    help="At most; 0: all.",
)


def listing(
    rows: Callable[[ZaazClient, int | None], AsyncIterator[_Row]],
    limit: int,
    as_json: bool,
    target: str,
    given_key: str | None,
    scopes: str,
) -> list[_Row] | None:
    """The rows, `limit` of them at most, or all for 0; that there are more is told on stderr.

    `rows` yields as many as it is told, None for all. With `as_json` each is
    printed as it comes, and none is returned: there may be more than memory holds.
    """
    found: list[_Row] = []

    def take(row: _Row) -> None:
        if as_json:
            click.echo(json.dumps(as_dict(row)))
        else:
            found.append(row)

    async def work(client: ZaazClient) -> bool:
        with progress(is_piped() or not as_json) as bar:
            task = bar.add_task("listed", total=limit or None)
            count = 0
            async for row in rows(client, limit + 1 if limit else None):
                count += 1
                if not limit or count <= limit:
                    take(row)
                    bar.advance(task)
        return limit != 0 and count > limit

    if ask(work, target, given_key, scopes):
        click.echo(f"Only the first {limit:,}: --limit 0 lists all.", err=True)
    return None if as_json else found
