"""`zaaz statement verify` and `zaaz statement keys`: what needs no key of the API."""

import json
import re
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from zaaz_client.client import ZaazClient
from zaaz_client.command.asking import (
    PATIENCE_SECONDS,
    Refused,
    ask_with,
    for_programs,
    progress,
    to_target,
)
from zaaz_client.command.line import BadUsage
from zaaz_client.statements.download import signing_keys
from zaaz_client.statements.formats import credits_text
from zaaz_client.statements.verify import MAX_LINE_BYTES, Verdict, verify

MAX_KEY_FILE_BYTES: Final = 65_536
KEY_BYTES: Final = 32

_KEY: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_NO_KEY: Final = "none"
"""Sent where no key of the API is needed: the header may not be empty."""
_SHOWN_EVERY: Final = 500
"""Lines."""


@click.command(name="verify")
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
@for_programs
def verify_(
    file: Path,
    given: tuple[str, ...],
    fetch: bool,
    no_signature: bool,
    target: str,
    as_json: bool,
) -> None:
    """Check that the statement in FILE is whole, unchanged, and signed by the server.

    Needs no server, but for --fetch, and no key of the API. A line that is not
    as it was written is named. With --json, one object, whatever was found.

    Exit codes: 0 good; 1 not; 2 wrong options, file or key, or no key to check
    the signature with; 3 the server cannot be reached.
    """
    keys = [key for each in given for key in _read_keys(each)]
    if fetch:
        keys += _fetch(target).values()
    verdict = _verify(file, keys)
    if as_json:
        click.echo(json.dumps(_object(file, verdict)))
    if verdict.problems:
        raise Refused(_told(file, verdict))
    if not as_json:
        click.echo(_summary(file, verdict))
    if not verdict.signature_checked:
        message = "The signature was NOT checked: anyone can have written this statement."
        if not no_signature:
            raise BadUsage(f"{message}\nGive --key or --fetch, or --no-signature to do without.")
        click.echo(message, err=True)


@click.command()
@to_target
@for_programs
def keys(target: str, as_json: bool) -> None:
    """Print the server's public keys: one a line, after its id.

    Needs no key of the API. With --json, one object a line. Exit codes: 0
    printed; 1 refused; 2 wrong options; 3 no server.
    """
    for name, key in _fetch(target).items():
        line = json.dumps({"key_id": name, "public_key": key.hex()})
        click.echo(line if as_json else f"{name} {key.hex()}")


def _fetch(target: str) -> dict[str, bytes]:
    def work(client: ZaazClient) -> Coroutine[Any, Any, dict[str, bytes]]:
        return signing_keys(client, patience_seconds=PATIENCE_SECONDS)

    return ask_with(work, target, _NO_KEY, "none at all")


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
            return verify(_lines(opened, file.stat().st_size), keys)
    except OSError as error:
        raise BadUsage(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadUsage(f"A key given is none: {error}.") from error


def _lines(opened: BinaryIO, size: int) -> Iterator[bytes]:
    """The lines of a file of `size` bytes, with a bar."""
    with progress() as bar:
        task = bar.add_task("bytes verified", total=size or None)
        # A file that is one endless line does not come into memory whole.
        lines = iter(lambda: opened.readline(MAX_LINE_BYTES + 1), b"")
        done = 0
        for number, line in enumerate(lines):
            yield line
            done += len(line)
            if number % _SHOWN_EVERY == 0:
                bar.update(task, completed=done)


def _told(file: Path, verdict: Verdict) -> str:
    problems = [f"{file}: {problem}" for problem in verdict.problems]
    return "\n  ".join(["The statement is not as the server wrote it.", *problems])


def _object(file: Path, verdict: Verdict) -> dict[str, Any]:
    """As JSON has it. Amounts are integers, in micro-credits; what cannot be read is left out."""
    found: dict[str, Any] = {
        "file": str(file),
        "good": verdict.good,
        "signature_checked": verdict.signature_checked,
        "problems": [one._asdict() for one in verdict.problems],
        "transactions": verdict.transactions,
    }
    if verdict.opening is not None:
        opening = verdict.opening
        found |= {
            "user_id": opening.user_id,
            "user_wallet_id": opening.wallet_id,
            "start_time": _time(opening.start_ms),
            "end_time": _time(opening.end_ms),
            "opening_sequence": opening.sequence,
            "opening_balance_micros": opening.balance_micros,
        }
    if verdict.head is not None:
        head = verdict.head
        found |= {
            "balance_after_micros": head.balance_after_micros,
            "signed_time": _time(head.signed_ms),
            "key_id": head.key_id,
        }
    return found


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _time(ms: int) -> str:
    return _moment(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _summary(file: Path, verdict: Verdict) -> str:
    opening, head = verdict.opening, verdict.head
    assert opening is not None
    assert head is not None
    start, end, signed = (
        f"{_moment(ms):%Y-%m-%d %H:%M:%S} UTC"
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
