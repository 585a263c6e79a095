"""`zaaz statement`: get, verify, keys."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

import click

from zaaz_client.asking import Refused, ask_with, check_id, moment, progress, to_target, with_key
from zaaz_client.client import ZaazClient
from zaaz_client.command_line import BadUsage, api_key
from zaaz_client.statements.download import signing_keys, statement_lines
from zaaz_client.statements.formats import FORMATS, credits_text
from zaaz_client.statements.verify import MAX_LINE_BYTES, Verdict, verify

PATIENCE_SECONDS: Final = 10.0
"""How long a page of a statement is asked for before the server counts as away."""

MAX_KEY_FILE_BYTES: Final = 65_536
KEY_BYTES: Final = 32

_KEY: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_NO_KEY: Final = "none"
"""Sent where no key of the API is needed: the header may not be empty."""
_SCOPES: Final = "wallet.read or admin"
_SHOWN_EVERY: Final = 500
"""Lines."""


@click.group()
def statement() -> None:
    """Statements: get one, and verify one offline."""


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
    shown = output is not None or not sys.stdout.isatty()
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


@statement.command(name="verify")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--key",
    "given",
    multiple=True,
    metavar="HEX|FILE",
    help="Public key of the server, or a file with such keys (zaaz statement keys). Repeatable.",
)
@click.option("--fetch", is_flag=True, help="Ask the server for its public keys.")
@click.option("--no-signature", is_flag=True, help="Be content without a checked signature.")
@to_target
def verify_(
    file: Path, given: tuple[str, ...], fetch: bool, no_signature: bool, target: str
) -> None:
    """Check that the statement in FILE is whole, unchanged, and signed by the server.

    Needs no server, but for --fetch. A line that is not as it was written is
    named.

    Exit codes: 0 good; 1 not; 2 wrong options, file or key, or no key to check
    the signature with; 3 the server cannot be reached.
    """
    keys = [key for each in given for key in _read_keys(each)]
    if fetch:
        keys += _fetch(target).values()
    verdict = _verify(file, keys)
    if verdict.problems:
        raise Refused(_told(file, verdict))
    click.echo(_summary(file, verdict))
    if not verdict.signature_checked:
        message = "The signature was NOT checked: anyone can have written this statement."
        if not no_signature:
            raise BadUsage(f"{message}\nGive --key or --fetch, or --no-signature to do without.")
        click.echo(message, err=True)


@statement.command()
@to_target
def keys(target: str) -> None:
    """Print the server's public keys: one a line, after its id."""
    for name, key in _fetch(target).items():
        click.echo(f"{name} {key.hex()}")


def _fetch(target: str) -> dict[str, bytes]:
    return ask_with(signing_keys, target, _NO_KEY, "none at all")


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


def _read_keys(given: str) -> list[bytes]:
    if _KEY.fullmatch(given):
        return [bytes.fromhex(given)]
    try:
        with Path(given).open("rb") as file:
            content = file.read(MAX_KEY_FILE_BYTES)
    except OSError as error:
        problem = f"neither 64 hex digits nor a file that can be read ({error.strerror})"
        raise BadUsage(f"--key {given}: it is {problem}.") from error
    found = [bytes.fromhex(key) for key in _KEY.findall(content.decode("ascii", "replace"))]
    if not found and len(content) == KEY_BYTES:
        found = [content]
    if not found:
        raise BadUsage(f"--key {given}: it has no key of 64 hex digits.")
    return found


def _verify(file: Path, keys: list[bytes]) -> Verdict:
    try:
        with file.open("rb") as opened:
            # A file that is one endless line does not come into memory whole.
            lines = iter(lambda: opened.readline(MAX_LINE_BYTES + 1), b"")
            return verify(lines, keys)
    except OSError as error:
        raise BadUsage(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadUsage(f"A key given is none: {error}.") from error


def _told(file: Path, verdict: Verdict) -> str:
    problems = [f"{file}: {problem}" for problem in verdict.problems]
    return "\n  ".join(["The statement is not as the server wrote it.", *problems])


def _summary(file: Path, verdict: Verdict) -> str:
    opening, head = verdict.opening, verdict.head
    assert opening is not None
    assert head is not None
    start, end, signed = (
        f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
        for ms in (opening.start_ms, opening.end_ms, head.signed_ms)
    )
    before = credits_text(opening.balance_micros)
    after = credits_text(head.balance_after_micros)
    lines = [
        f"{file}: good.",
        f"  user          {opening.user_id}, wallet {opening.wallet_id}",
        f"  period        {start} to {end}",
        f"  transactions  {verdict.transactions:,}, after number {opening.sequence}",
        f"  balance       {before} before, {after} after",
    ]
    if verdict.signature_checked:
        lines.append(f"  signature     {signed}, key {head.key_id}")
    return "\n".join(lines)
