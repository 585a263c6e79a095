"""`zaaz grant`."""

import json
import re
import shlex
from datetime import datetime
from typing import Final
from uuid import uuid4

import click
from zaaz.credits.v1.credits_service_pb2 import GrantCreditsRequest, GrantCreditsResponse
from zaaz.ledger.v1.grant_pb2 import IncreaseSource

from zaaz_client.client import ZaazClient
from zaaz_client.command.asking import (
    PATIENCE_SECONDS,
    as_dict,
    ask,
    asking,
    check_id,
    moment,
)
from zaaz_client.command.line import Unreachable
from zaaz_client.retry import retry_within
from zaaz_client.statements.formats import credits_text

SOURCES: Final = ("payment", "bonus", "coupon", "refund", "adjustment")

_CREDITS: Final = re.compile(r"(\d{1,12})(?:\.(\d{1,6}))?")
_DECIMALS: Final = 6


def _micros(text: str) -> int:
    """Credits with up to six decimals, in micro-credits."""
    found = _CREDITS.fullmatch(text.replace(",", ""))
    micros = int(found[1] + (found[2] or "").ljust(_DECIMALS, "0")) if found else 0
    if micros == 0:
        raise click.BadParameter(f"{text!r} is no number of credits like 50 or 0.25")
    return micros


@click.command()
@click.argument("user_id", metavar="USER", callback=check_id)
@click.argument("micros", metavar="CREDITS", type=_micros)
@click.option("--source", type=click.Choice(SOURCES), default="bonus", show_default=True)
@click.option("--expires", type=moment, metavar="TIME", help="Void from then on.  [default: never]")
@click.option(
    "--priority", type=click.IntRange(0, 1_000), default=0, help="Lower is used up first."
)
@click.option("--reason", default="", help="Kept with the transaction.")
@click.option("--request-id", metavar="ID", help="Of an attempt whose answer was lost.")
@asking
def grant(
    user_id: str,
    micros: int,
    source: str,
    expires: datetime | None,
    priority: int,
    reason: str,
    request_id: str | None,
    target: str,
    given_key: str | None,
    as_json: bool,
) -> None:
    """Give CREDITS, like 50 or 0.25, to USER.

    Exit codes: 0 given; 1 refused; 2 wrong options or key; 3 no server, or its
    answer was lost: the message says how to repeat it without giving twice.
    """
    request = GrantCreditsRequest(
        request_id=request_id or uuid4().hex,
        user_id=user_id,
        credits_micros=micros,
        source=IncreaseSource.Value(f"INCREASE_SOURCE_{source.upper()}"),
        priority=priority,
        reason=reason,
    )
    if expires is not None:
        request.expires_time.FromDatetime(expires)

    async def work(client: ZaazClient) -> GrantCreditsResponse:
        return await retry_within(client.credits.GrantCredits, request, PATIENCE_SECONDS)

    try:
        given = ask(work, target, given_key, "credits.write or admin")
    except Unreachable as error:
        context = click.get_current_context()
        words = [*context.command_path.split(), user_id, credits_text(micros)]
        words += _options(request, source, expires)
        raise Unreachable(
            f"{error.message}\nTo repeat it safely:\n  {shlex.join(words)}"
        ) from error
    if as_json:
        click.echo(json.dumps(as_dict(given)))
        return
    balance = credits_text(given.wallet.credits_micros)
    click.echo(f"Gave {credits_text(micros)} credits: {user_id} has {balance}.")
    click.echo(f"Transaction {given.transaction.id}.")


def _options(request: GrantCreditsRequest, source: str, expires: datetime | None) -> list[str]:
    words = ["--source", source, "--priority", str(request.priority)]
    if request.reason:
        words += ["--reason", request.reason]
    if expires is not None:
        words += ["--expires", expires.isoformat()]
    return [*words, "--request-id", request.request_id]
