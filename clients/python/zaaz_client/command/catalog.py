"""`zaaz catalog apply` and `zaaz catalog export`."""

import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from uuid import uuid4

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from zaaz.catalog.v1.catalog_document_pb2 import (
    CATALOG_ACTION_CREATE,
    CATALOG_ACTION_DELETE,
    CATALOG_ACTION_RESTORE,
    CATALOG_ACTION_UPDATE,
    ApplyCatalogRequest,
    ApplyCatalogResponse,
    CatalogDifference,
    CatalogDocument,
    ExportCatalogRequest,
    FieldDifference,
)

from zaaz_client.catalog_files import (
    CatalogFile,
    CatalogFileError,
    read_catalog,
    show_difference,
    write_catalog,
)
from zaaz_client.client import ZaazClient
from zaaz_client.command.asking import PATIENCE_SECONDS, Refused, as_dict, ask, asking
from zaaz_client.command.line import BadUsage
from zaaz_client.errors import AccessRefused, ZaazError
from zaaz_client.retry import retry_within

MAX_SHOWN: Final = 500
"""Rows in a table; --json has all of them."""

MAX_CELL_CHARACTERS: Final = 60
MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024
"""What the server takes in one message."""

APPLY_TIMEOUT_SECONDS: Final = 120.0

_SCOPES: Final = "catalog.read to export, catalog.write to apply, or admin"
_ACTIONS: Final = {
    CATALOG_ACTION_CREATE: ("create", "green"),
    CATALOG_ACTION_UPDATE: ("update", "yellow"),
    CATALOG_ACTION_DELETE: ("delete", "red"),
    CATALOG_ACTION_RESTORE: ("restore", "green"),
}


@click.group()
def catalog() -> None:
    """What is offered, as one YAML file: features, packages, prices, coupons."""


@catalog.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show what differs and change nothing.")
@click.option("--prune", is_flag=True, help="Delete all that FILE leaves out.")
@click.option("--yes", is_flag=True, help="Apply without asking.")
@asking
def apply(
    file: Path,
    dry_run: bool,
    prune: bool,
    yes: bool,
    target: str,
    given_key: str | None,
    as_json: bool,
) -> None:
    """Make the catalog like FILE.

    What differs is shown first, and applied once it is confirmed: all of it, or
    nothing. Rows that FILE leaves out stay, but for a package's own prices and
    features, unless --prune is given. Done again, nothing differs. With --json
    nothing is asked: it shows, or with --yes applies.

    Exit codes: 0 shown or applied; 1 refused, or not confirmed; 2 wrong options,
    file or key; 3 no server.
    """
    read = _read(file)
    if prune and not read.document.ByteSize():
        raise BadUsage(f"{file} says nothing, and --prune would delete all that there is.")
    request = ApplyCatalogRequest(document=read.document, prune=prune, dry_run=True)
    if request.ByteSize() > MAX_REQUEST_BYTES:
        text = f"{file} takes {request.ByteSize():,} bytes as a message; the server takes"
        raise BadUsage(f"{text} {MAX_REQUEST_BYTES:,}. Apply it in parts, without --prune.")
    found = _ask(request, read, file, target, given_key)
    if not as_json:
        _show(found)
    if not dry_run and found.differences and _is_wanted(found, yes, as_json):
        request.dry_run = False
        # One that is answered late is not applied twice when it is sent again.
        request.request_id = uuid4().hex
        found = _ask(request, read, file, target, given_key)
        if not as_json:
            click.echo(f"Applied {len(found.differences):,}.")
    if as_json:
        click.echo(json.dumps(as_dict(found)))


@catalog.command()
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Into this file."
)
@asking
def export(output: Path | None, target: str, given_key: str | None, as_json: bool) -> None:
    """Print the whole catalog as a file for `zaaz catalog apply`.

    Exit codes: 0 printed; 1 refused, or not written; 2 wrong options or key;
    3 no server.
    """

    async def work(client: ZaazClient) -> CatalogDocument:
        request = ExportCatalogRequest()
        return (
            await retry_within(client.catalog.ExportCatalog, request, PATIENCE_SECONDS)
        ).document

    document = ask(work, target, given_key, _SCOPES)
    text = json.dumps(as_dict(document)) + "\n" if as_json else write_catalog(document)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        _write(output, text)
    except OSError as error:
        raise Refused(f"{output} cannot be written: {error.strerror}") from error


def _read(file: Path) -> CatalogFile:
    try:
        return read_catalog(file.read_text(encoding="utf-8"), str(file))
    except CatalogFileError as error:
        raise BadUsage("The file is no catalog.\n  " + "\n  ".join(error.problems)) from error
    except UnicodeDecodeError as error:
        raise BadUsage(f"{file} is not UTF-8.") from error
    except OSError as error:
        raise BadUsage(f"{file} cannot be read: {error.strerror}") from error


def _ask(
    request: ApplyCatalogRequest, read: CatalogFile, file: Path, target: str, given_key: str | None
) -> ApplyCatalogResponse:
    async def work(client: ZaazClient) -> ApplyCatalogResponse:
        try:
            return await client.catalog.ApplyCatalog(request, timeout=APPLY_TIMEOUT_SECONDS)
        except AccessRefused:
            raise
        except ZaazError as error:
            told = _placed(error, read, file)
            if not told:
                raise
            raise BadUsage("The server refuses the file.\n  " + "\n  ".join(told)) from error

    return ask(work, target, given_key, _SCOPES)


def _placed(error: ZaazError, read: CatalogFile, file: Path) -> list[str]:
    """What is wrong with the file, where it says it."""
    told = []
    for one in error.violations:
        place = read.place(one.field)
        if place is not None:
            told.append(f"{file}:{place.line}:{place.column}: {one.description} ({one.field})")
    return told


def _is_wanted(found: ApplyCatalogResponse, yes: bool, as_json: bool) -> bool:
    # A question would stand in the middle of the JSON.
    if yes or as_json:
        return yes
    if not sys.stdin.isatty():
        raise BadUsage("Nothing was applied: nobody can be asked here. Add --yes, or --dry-run.")
    click.confirm(f"Apply these {len(found.differences):,}?", abort=True)
    return True


def _write(path: Path, text: str) -> None:
    """The whole text or none of it."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as part:
        part.write(text)
    try:
        os.chmod(part.name, 0o644)
        os.replace(part.name, path)
    except OSError:
        os.unlink(part.name)
        raise


# How it looks


def _show(found: ApplyCatalogResponse) -> None:
    if not found.differences:
        click.echo(f"Nothing differs: {found.unchanged:,} rows are so already.")
        return
    Console(emoji=False).print(_table(found.differences[:MAX_SHOWN]))
    hidden = len(found.differences) - MAX_SHOWN
    if hidden > 0:
        click.echo(f"and {hidden:,} more; --json shows all")
    click.echo(f"{len(found.differences):,} differ, {found.unchanged:,} do not.")


def _table(found: Iterable[CatalogDifference]) -> Table:
    table = Table()
    for name in ("", "of", "name", "field", "before", "after"):
        table.add_column(name, overflow="fold")
    for one in found:
        action, colour = _ACTIONS.get(one.action, (str(one.action), ""))
        row = [f"[{colour}]{action}[/]" if colour else action, one.resource, escape(one.name)]
        told = [_cells(one.resource, field) for field in one.fields if not _is_plain(field)]
        first, *others = told or [[""] * 3]
        table.add_row(*row, *first)
        for other in others:
            table.add_row("", "", "", *other)
    return table


def _is_plain(field: FieldDifference) -> bool:
    """Whether it is what every new row says."""
    return (field.field, field.before, field.after) == ("is_active", "", "true")


def _cells(resource: str, field: FieldDifference) -> list[str]:
    key, before, after = show_difference(resource, field)
    return [key, escape(_short(before)), escape(_short(after))]


def _short(text: str) -> str:
    return text if len(text) <= MAX_CELL_CHARACTERS else text[: MAX_CELL_CHARACTERS - 1] + "…"
