"""`zaaz models list` and `zaaz models import`."""

import json
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import click
from rich.table import Table
from zaaz.credits.v1.ai_model_pb2 import (
    AiModel,
    AiModelDifference,
    ImportAiModelsRequest,
    ImportAiModelsResponse,
    ListAiModelsRequest,
    TokenPrices,
)

from zaaz_client.client import ZaazClient
from zaaz_client.command.asking import (
    PATIENCE_SECONDS,
    as_dict,
    ask,
    asking,
    progress,
    stdout,
    time_text,
)
from zaaz_client.command.listing import limited, listing
from zaaz_client.lists import iterate

SCOPES: Final = "credits.read to list, credits.write to import, or admin"
MAX_SHOWN: Final = 200
"""Differences in a table; --json has all of them."""
IMPORT_TIMEOUT_SECONDS: Final = 120.0

_MICROS: Final = 1_000_000
_KINDS: Final = (
    ("input", "input_token_price_micros"),
    ("output", "output_token_price_micros"),
    ("cache read", "cache_read_token_price_micros"),
    ("cache write", "cache_write_token_price_micros"),
)

_of_providers = click.option("--provider", "providers", multiple=True, help="Only of this one.")


@click.group()
def models() -> None:
    """The models that usage is priced by. Prices are in dollars per million tokens."""


@models.command("list")
@click.option("--search", default="", help="Only those whose name or value begins so.")
@limited
@_of_providers
@asking
def list_(
    search: str,
    limit: int,
    providers: Sequence[str],
    target: str,
    given_key: str | None,
    as_json: bool,
) -> None:
    """List models and the prices in force now.

    With --json, one model a line. Exit codes: 0 listed; 1 refused; 2 wrong
    options or key; 3 no server.
    """
    filter_ = " OR ".join(f"provider = {json.dumps(one)}" for one in providers)
    request = ListAiModelsRequest(filter=filter_, search=search, order_by="value asc")

    def rows(client: ZaazClient, most: int | None) -> AsyncIterator[AiModel]:
        method = client.credits.ListAiModels
        return iterate(method, request, limit=most, retry_seconds=PATIENCE_SECONDS)

    found = listing(rows, limit, as_json, target, given_key, SCOPES)
    if found is not None:
        stdout().print(_models_table(found))


@models.command("import")
@click.option(
    "--effective-time",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"]),
    help="From when new prices are in force, in UTC.  [default: now]",
)
@click.option("--dry-run", is_flag=True, help="Show what differs and change nothing.")
@click.option("--yes", is_flag=True, help="Apply without asking.")
@_of_providers
@asking
def import_(
    effective_time: datetime | None,
    dry_run: bool,
    yes: bool,
    providers: Sequence[str],
    target: str,
    given_key: str | None,
    as_json: bool,
) -> None:
    """Take models and prices over from the published list that the server carries.

    What differs is shown first, and applied once it is confirmed: new models,
    and new prices as new versions. Models that the list does not have stay as
    they are, and those that were deleted stay so. Done again, nothing differs.
    With --json nothing is asked: it shows, or with --yes applies.

    Exit codes: 0 shown or applied; 1 refused, or not confirmed; 2 wrong options
    or key; 3 no server.
    """
    request = ImportAiModelsRequest(dry_run=True, providers=providers)
    if effective_time is not None:
        request.effective_time.FromDatetime(effective_time.replace(tzinfo=UTC))

    async def work(client: ZaazClient) -> ImportAiModelsResponse:
        with progress() as bar:
            bar.add_task("comparing" if request.dry_run else "applying", total=None)
            return await client.credits.ImportAiModels(request, timeout=IMPORT_TIMEOUT_SECONDS)

    found = ask(work, target, given_key, SCOPES)
    if not as_json:
        _show(found)
    if not dry_run and found.differences and _is_wanted(found, yes, as_json):
        request.dry_run = False
        # One that is answered late is not applied twice when it is sent again.
        request.request_id = uuid.uuid4().hex
        found = ask(work, target, given_key, SCOPES)
        if not as_json:
            click.echo(f"Applied {len(found.differences):,} from {found.source}.")
    if as_json:
        click.echo(json.dumps(as_dict(found)))


def _is_wanted(found: ImportAiModelsResponse, yes: bool, as_json: bool) -> bool:
    # A question would stand in the middle of the JSON.
    if yes or as_json:
        return yes
    click.confirm(f"Apply these {len(found.differences):,}?", abort=True)
    return True


# How it looks


def _show(found: ImportAiModelsResponse) -> None:
    if not found.differences:
        click.echo(f"Nothing differs from {found.source}: {found.unchanged:,} models.")
        return
    stdout().print(_differences_table(found.differences[:MAX_SHOWN]))
    hidden = len(found.differences) - MAX_SHOWN
    if hidden > 0:
        click.echo(f"and {hidden:,} more; --json shows all")
    click.echo(f"{found.source}: {len(found.differences):,} differ, {found.unchanged:,} do not.")


def _models_table(found: Iterable[AiModel]) -> Table:
    table = _table("value", "name")
    for model in found:
        prices = model.prices if model.HasField("prices") else None
        table.add_row(model.value, model.name, *_row(None, prices))
    return table


def _differences_table(found: Iterable[AiModelDifference]) -> Table:
    table = _table("value", "from")
    for one in found:
        before = one.prices_before if one.HasField("prices_before") else None
        since = time_text(one.effective_time) or "always"
        table.add_row(one.value, since, *_row(before, one.prices_after))
    return table


def _table(*names: str) -> Table:
    table = Table()
    for name in names:
        table.add_column(name, overflow="fold")
    for name, _ in _KINDS:
        table.add_column(name, justify="right")
    table.add_column("tiers", justify="right")
    return table


def _row(before: TokenPrices | None, after: TokenPrices | None) -> list[str]:
    """The price of each kind and the number of tiers: alone, or as it was and will be."""
    cells = [_change(_dollars(before, field), _dollars(after, field)) for _, field in _KINDS]
    same = before is not None and after is not None and before.tiers == after.tiers
    return [
        *cells,
        _tiers(after) if before is None or same else f"{_tiers(before)} → {_tiers(after)}",
    ]


def _change(before: str, after: str) -> str:
    return after if before in ("", after) else f"{before} → {after}"


def _tiers(prices: TokenPrices | None) -> str:
    return str(len(prices.tiers)) if prices is not None and prices.tiers else "-"


def _dollars(prices: TokenPrices | None, field: str) -> str:
    """Dollars per million tokens; "" for no prices, "input" for a cache price that is not set."""
    if prices is None:
        return ""
    is_set = any(known.name == field for known, _ in prices.ListFields())
    if field.startswith("cache") and not is_set:
        return "input"
    micros: int = getattr(prices, field)
    return f"{micros // _MICROS}.{micros % _MICROS:06d}".rstrip("0").rstrip(".")
