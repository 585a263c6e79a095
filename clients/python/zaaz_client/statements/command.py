"""`zaaz statement get`, and the group that it is in."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, TextIO

import click

from zaaz_client.client import ZaazClient
from zaaz_client.command.asking import (
    ask_with,
    check_id,
    is_piped,
    moment,
    progress,
    to_target,
    with_key,
)
from zaaz_client.command.line import BadUsage, api_key
from zaaz_client.statements.download import statement_lines
from zaaz_client.statements.formats import FORMATS
from zaaz_client.statements.verify_command import keys, verify_

PATIENCE_SECONDS: Final = 10.0
"""How long a page of a statement is asked for before the server counts as away."""

_SCOPES: Final = "wallet.read or admin"
_SHOWN_EVERY: Final = 500
"""Lines."""


@click.group()
def statement() -> None:
    """Statements: get one, and verify one offline."""


statement.add_command(verify_)
statement.add_command(keys)


@statement.command()
@click.argument("user", callback=check_id)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(list(FORMATS)),
    default="csv",
    show_default=True,
    help="csv for people and spreadsheets, jsonl for programs.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write it.  [default: stdout]",
)
@click.option(
    "--from",
    "start",
    type=moment,
    metavar="TIME",
    help="The period's first moment.  [default: the wallet's making]",
)
@click.option(
    "--to", "end", type=moment, metavar="TIME", help="First moment after it.  [default: now]"
)
@to_target
@with_key
def get(
    user: str,
    format_name: str,
    output: Path | None,
    start: datetime | None,
    end: datetime | None,
    target: str,
    given_key: str | None,
) -> None:
    """Write the statement of USER, a user's id.

    Exit codes: 0 written; 1 refused; 2 wrong options or key; 3 no server.
    """
    key = api_key(given_key, target)
    # On a terminal the statement itself is what is seen.
    shown = output is not None or is_piped()
    with _written(output) as file, progress(shown) as bar:
        task = bar.add_task("lines written", total=None)

        async def work(client: ZaazClient) -> None:
            lines = statement_lines(
                client, user, FORMATS[format_name], start, end, patience_seconds=PATIENCE_SECONDS
            )
            count = 0
            async for line in lines:
                file.write(line)
                count += 1
                if count % _SHOWN_EVERY == 0:
                    bar.update(task, completed=count)

        ask_with(work, target, key, _SCOPES)


@contextmanager
def _written(output: Path | None) -> Iterator[TextIO]:
    """Where to write: stdout, or a file that is there when it is whole."""
    if output is None:
        with open(sys.stdout.fileno(), "w", encoding="utf-8", closefd=False) as stdout:
            yield stdout
        return
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        part.replace(output)
    except OSError as error:
        raise BadUsage(f"{output} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
