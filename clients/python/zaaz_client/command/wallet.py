"""`zaaz wallet show` and `zaaz wallet watch`."""

import json
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich.table import Table
from zaaz.ledger.v1.wallet_pb2 import OverdraftPolicy, Wallet
from zaaz.wallet.v1.wallet_service_pb2 import GetWalletRequest

from zaaz_client.client import ZaazClient
from zaaz_client.command.asking import as_dict, ask, asking, check_id, stdout
from zaaz_client.command.line import DEFAULT_TARGET, Interrupted
from zaaz_client.statements.formats import credits_text
from zaaz_client.watch import (
    WalletChanged,
    WalletEvent,
    WalletSnapshot,
    WalletUnchanged,
    WalletWatch,
    WatchSettings,
)

SCOPES: Final = "wallet.read or admin"

_of_user = click.argument("user_id", metavar="USER", callback=check_id)


@click.group()
def wallet() -> None:
    """A user's wallet: as it is, and as it changes."""


@wallet.command()
@_of_user
@asking
def show(user_id: str, target: str, given_key: str | None, as_json: bool) -> None:
    """Show the wallet of USER.

    Exit codes: 0 shown; 1 refused; 2 wrong options or key; 3 no server.
    """

    async def work(client: ZaazClient) -> Wallet:
        return (await client.wallets.GetWallet(GetWalletRequest(user_id=user_id))).wallet

    found = ask(work, target, given_key, SCOPES)
    if as_json:
        click.echo(json.dumps(as_dict(found)))
    else:
        stdout().print(_table(found))


@wallet.command()
@_of_user
@asking
@click.option("--resume", "resume_token", default="", metavar="TOKEN", help="Go on after it.")
@click.option("--count", type=click.IntRange(1), help="End after so many events.")
@click.option(
    "--patience",
    type=click.FloatRange(0, min_open=True),
    default=300.0,
    show_default=True,
    help="Seconds that the server may be away.",
)
def watch(
    user_id: str,
    target: str,
    given_key: str | None,
    as_json: bool,
    resume_token: str,
    count: int | None,
    patience: float,
) -> None:
    """Tell every change of the wallet of USER, through restarts of the server.

    With --json, each line has the resume_token with which to go on after it.

    Exit codes: 0 as many as --count; 1 refused; 2 wrong options or key; 3 no
    server; 130 interrupted.
    """
    settings = WatchSettings(stall_timeout_seconds=patience)
    last = [resume_token]

    def tell(event: WalletEvent, token: str) -> None:
        last[0] = token
        click.echo(json.dumps(_line(event, token)) if as_json else _words(event))

    async def work(client: ZaazClient) -> None:
        events = client.watch_wallet(user_id, resume_token, settings=settings)
        await _watch(events, tell, count)

    try:
        ask(work, target, given_key, SCOPES)
    except Interrupted:
        words = ["zaaz", "wallet", "watch", user_id, "--resume", last[0]]
        if target != DEFAULT_TARGET:
            words += ["--target", target]
        raise Interrupted(f"Interrupted. To go on:\n  {shlex.join(words)}") from None


async def _watch(
    events: WalletWatch, tell: Callable[[WalletEvent, str], None], count: int | None
) -> None:
    async with events:
        told = 0
        async for event in events:
            tell(event, events.resume_token)
            told += 1
            if told == count:
                return


# How it looks


def _line(event: WalletEvent, token: str) -> dict[str, Any]:
    """One line of JSON. Amounts are integers, as in the event."""
    line: dict[str, Any]
    match event:
        case WalletSnapshot():
            line = {"event": "snapshot", "resynced": event.resynced}
            line |= {"sequence": event.wallet.sequence, "wallet": as_dict(event.wallet)}
        case WalletChanged():
            line = {"event": "change", "first_sequence": event.first_sequence}
            line |= {"sequence": event.sequence, "credits_micros": event.credits_micros}
            line |= {"held_micros": event.held_micros, "debt_micros": event.debt_micros}
            line |= {"available_micros": event.available_micros}
            line["updated_time"] = _time(event.updated_time)
        case WalletUnchanged():
            line = {"event": "unchanged", "sequence": event.sequence}
    return {**line, "resume_token": token}


def _words(event: WalletEvent) -> str:
    match event:
        case WalletSnapshot(wallet=found, resynced=resynced):
            what = "resynced" if resynced else "as it is"
            moment = found.updated_time.ToDatetime(UTC)
            return f"{_time(moment)}  {what} at {found.sequence:,}  {_balance(found)}"
        case WalletChanged(first_sequence=first, sequence=last):
            which = f"{last:,}" if first == last else f"{first:,} to {last:,}"
            return f"{_time(event.updated_time)}  transaction {which}  {_balance(event)}"
        case WalletUnchanged(sequence=sequence):
            return f"nothing after {sequence:,}"


def _balance(state: Wallet | WalletChanged) -> str:
    parts = [f"credits {credits_text(state.credits_micros)}"]
    parts.append(f"available {credits_text(state.available_micros)}")
    if state.held_micros:
        parts.append(f"held {credits_text(state.held_micros)}")
    if state.debt_micros:
        parts.append(f"debt {credits_text(state.debt_micros)}")
    return "  ".join(parts)


def _table(found: Wallet) -> Table:
    table = Table(show_header=False)
    table.add_column(style="cyan")
    table.add_column()
    policy = OverdraftPolicy.Name(found.overdraft_policy).removeprefix("OVERDRAFT_POLICY_")
    for name, value in (
        ("user", found.user_id),
        ("email", found.email),
        ("credits", credits_text(found.credits_micros)),
        ("held", credits_text(found.held_micros)),
        ("available", credits_text(found.available_micros)),
        ("debt", credits_text(found.debt_micros)),
        ("grants", str(len(found.grants))),
        ("overdraft", policy.lower().replace("_", " ")),
        ("expires", _expiry(found)),
        ("transactions", f"{found.sequence:,}"),
        ("changed", _time(found.updated_time.ToDatetime(UTC))),
    ):
        if value:
            table.add_row(name, value)
    return table


def _expiry(found: Wallet) -> str:
    return _time(found.expires_time.ToDatetime(UTC)) if found.HasField("expires_time") else ""


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
