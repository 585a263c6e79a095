"""How commands ask a server: their common options, their work, how it ends, how it looks."""

import asyncio
import re
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from zaaz_client.client import ZaazClient
from zaaz_client.command.hints import with_hint
from zaaz_client.command.line import (
    DEFAULT_TARGET,
    BadUsage,
    Failure,
    Interrupted,
    Unreachable,
    api_key,
    opened,
)
from zaaz_client.errors import (
    AccessRefused,
    DeadlineExceeded,
    InvalidRequest,
    Unavailable,
    ZaazError,
)

PATIENCE_SECONDS: Final = 3.0
"""How long a page is asked for, and a change tried with one request_id, while nobody answers."""
DEFAULT_LISTED: Final = 100

_COPIED: Final = frozenset({"id", "user"})
"""Columns of ids, which the next command is given."""
_UNBOUNDED: Final = 100_000
"""Of a width: wider than any table."""
_ID: Final = re.compile(r"[0-9a-f]{24}")
_Command = TypeVar("_Command", bound=Callable[..., Any])
_T = TypeVar("_T")


class Refused(Failure):
    """The server refused, or not everything is as it should be."""

    exit_code = 1


to_target = click.option(
    "--target", envvar="ZAAZ_TARGET", default=DEFAULT_TARGET, show_default=True
)
with_key = click.option("--api-key", "given_key", envvar="ZAAZ_API_KEY", help="Or ZAAZ_API_KEY.")
for_programs = click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")


def asking(command: _Command) -> _Command:
    """The options --target, --api-key and --json."""
    return to_target(with_key(for_programs(command)))


def check_id(_: click.Context, __: click.Parameter, given: Any) -> Any:
    """For arguments and options that are ids: one, several or none."""
    for one in given if isinstance(given, tuple) else (given or "0" * 24,):
        if _ID.fullmatch(one) is None:
            raise click.BadParameter(f"{one!r} must be 24 lowercase hex digits")
    return given


def moment(text: str) -> datetime:
    """A day or a time of ISO 8601; UTC where it names no other zone."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        problem = f"{text!r} is no time like 2027-01-31 or 2027-01-31T12:00:00Z"
        raise click.BadParameter(problem) from None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def ask(
    work: Callable[[ZaazClient], Coroutine[Any, Any, _T]],
    target: str,
    given_key: str | None,
    scopes: str,
) -> _T:
    """The result of `work` on a client; its errors as words and an exit code.

    `scopes` says which a key needs.
    """

    return ask_with(work, target, api_key(given_key, target), scopes)


def ask_with(
    work: Callable[[ZaazClient], Coroutine[Any, Any, _T]], target: str, key: str, scopes: str
) -> _T:
    """As `ask`, with a key that was found already."""

    async def run() -> _T:
        async with opened(target, key) as client:
            return await work(client)

    return finish(run(), target, scopes)


def finish(work: Coroutine[Any, Any, _T], target: str, scopes: str) -> _T:
    """The result of `work`; its errors as words and an exit code. See `ask`."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted.") from None
    except (Unavailable, DeadlineExceeded) as error:
        raise Unreachable(
            f"Cannot reach zaaz at {target}: {error}\n"
            "Is the server running (`make run`)? Another one is named by --target or ZAAZ_TARGET."
        ) from error
    except AccessRefused as error:
        raise BadUsage(
            f"The server refuses the API key: {error}\n"
            f"Set ZAAZ_API_KEY to a key with the scope {scopes}."
        ) from error
    except InvalidRequest as error:
        fields = [f"{one.field}: {one.description}" for one in error.violations]
        raise BadUsage("\n  ".join([str(error), *fields])) from error
    except ZaazError as error:
        raise Refused(with_hint(error)) from error


# How it looks


def as_dict(message: Message) -> dict[str, Any]:
    """A message as it stands in JSON."""
    return MessageToDict(message, preserving_proto_field_name=True)


def time_text(moment_: Timestamp) -> str:
    """To the second, in UTC; "" for none."""
    if not (moment_.seconds or moment_.nanos):
        return ""
    return moment_.ToDatetime(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def stdout(width: int | None = None) -> Console:
    """For what others wrote: nothing of it is taken for markup or for the name of an emoji."""
    return Console(markup=False, emoji=False, width=width)


def show(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A table on stdout. Columns whose name begins with ">" are of numbers.

    No word of it is broken, as what is copied from it may be an id or an amount: a terminal
    that is too narrow for that gets a small table of each row, and a file a wide one.
    """
    names, shown = tuple(columns), [tuple(row) for row in rows]
    table, console = _table(names, shown), stdout()
    unbounded = console.options.update(max_width=_UNBOUNDED)
    needed = console.measure(table, options=unbounded).minimum
    if needed > console.width and console.is_terminal:
        console.print(*(_record(names, row) for row in shown))
    else:
        stdout(width=max(needed, console.width)).print(table)


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table()
    for name in names:
        is_number = name.startswith(">")
        align: Any = "right" if is_number else "left"
        whole = is_number or name in _COPIED
        table.add_column(name.removeprefix(">"), justify=align, overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*row)
    return table


def _record(names: Sequence[str], row: Sequence[str]) -> Table:
    record = Table(show_header=False)
    record.add_column(no_wrap=True)
    record.add_column(overflow="fold")
    for name, value in zip(names, row, strict=True):
        record.add_row(name.removeprefix(">"), value)
    return record


def progress(is_shown: bool = True) -> Progress:
    """A bar on stderr, gone when the work is done; nothing where that is no terminal."""
    console = Console(stderr=True)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        disable=not (is_shown and is_watched()),
    )


def is_piped() -> bool:
    """Whether stdout goes elsewhere: on the terminal it would be printed over a bar."""
    return not sys.stdout.isatty()


def is_watched() -> bool:
    """Whether somebody sees stderr: FORCE_COLOR makes no terminal of a file."""
    return sys.stderr.isatty()
