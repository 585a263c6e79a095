"""`zaaz wallet list` and `zaaz wallet verify`."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import click
from rich.progress import Progress
from zaaz.ledger.v1.wallet_pb2 import Wallet
from zaaz.wallet.v1.wallet_service_pb2 import (
    ListWalletsRequest,
    VerifyWalletRequest,
    VerifyWalletResponse,
)

from zaaz_client.client import ZaazClient
from zaaz_client.command.asking import (
    PATIENCE_SECONDS,
    Refused,
    as_dict,
    ask,
    asking,
    check_id,
    is_piped,
    progress,
    show,
    time_text,
)
from zaaz_client.command.line import BadUsage, Failure
from zaaz_client.command.listing import limited, listing
from zaaz_client.lists import iterate
from zaaz_client.statements.formats import credits_text

MAX_SHOWN: Final = 200
"""Wallets and differences in a table; --json has all of them."""
VERIFY_TIMEOUT_SECONDS: Final = 300.0
"""A wallet of millions of transactions is read whole."""

_SCOPES: Final = "wallet.read or admin"


@dataclass
class Verified:
    """What was found so far."""

    wallets: int = 0
    transactions: int = 0
    unsound: int = 0
    first_unsound: dict[str, VerifyWalletResponse] = field(default_factory=dict)

    def add(self, user: str, answer: VerifyWalletResponse) -> None:
        """One more wallet."""
        self.wallets += 1
        self.transactions += answer.transactions_checked
        if answer.differences:
            self.unsound += 1
            if len(self.first_unsound) < MAX_SHOWN:
                self.first_unsound[user] = answer


@click.command("list")
@click.option("--email", default="", help="Only those of this address.")
@limited
@asking
def list_wallets(email: str, limit: int, target: str, given_key: str | None, as_json: bool) -> None:
    """List wallets, in the order of their making.

    With --json, one wallet a line. Exit codes: 0 listed; 1 refused; 2 wrong
    options or key; 3 no server.
    """

    def rows(client: ZaazClient, most: int | None) -> AsyncIterator[Wallet]:
        return _listed(client, most, email)

    found = listing(rows, limit, as_json, target, given_key, _SCOPES)
    columns = ("user", "email", ">credits", ">held", ">available", ">debt", ">transactions", "made")
    if found is not None:
        show(columns, map(_row, found))


@click.command("verify")
@click.argument("users", metavar="[USER]...", nargs=-1, callback=check_id)
@click.option("--all", "all_", is_flag=True, help="Every wallet.")
@asking
def verify_wallets(
    users: tuple[str, ...], all_: bool, target: str, given_key: str | None, as_json: bool
) -> None:
    """Check that wallets are what their transactions add up to, each link of their chains too.

    With --json, one wallet a line. Exit codes: 0 all are sound; 1 one is not,
    or the server refused; 2 wrong options or key; 3 no server.
    """
    if bool(users) == all_:
        raise BadUsage("Name one USER or more, or give --all.")

    found = Verified()

    def tell(user: str, answer: VerifyWalletResponse) -> None:
        found.add(user, answer)
        if as_json:
            line = {"user_id": user, "sound": not answer.differences, **as_dict(answer)}
            click.echo(json.dumps(line))

    async def work(client: ZaazClient) -> None:
        with progress(is_piped() or not as_json) as bar:
            await _verify(client, users, tell, bar)

    try:
        ask(work, target, given_key, _SCOPES)
    except Failure:  # of a later wallet: what was found before is told too
        if found.wallets and not as_json:
            _show_differences(found.first_unsound)
            click.echo(f"Verified {found.wallets:,} wallets: {found.unsound:,} are not sound.")
        raise
    if found.unsound:
        if not as_json:
            _show_differences(found.first_unsound)
        raise Refused(f"{found.unsound:,} of {found.wallets:,} wallets are not sound.")
    if not as_json:
        click.echo(f"Sound: {found.wallets:,} wallets, {found.transactions:,} transactions.")


def _listed(client: ZaazClient, limit: int | None = None, email: str = "") -> AsyncIterator[Wallet]:
    request = ListWalletsRequest(email=email)
    method = client.wallets.ListWallets
    return iterate(method, request, limit=limit, prefetch=True, retry_seconds=PATIENCE_SECONDS)


async def _verify(
    client: ZaazClient,
    users: tuple[str, ...],
    tell: Callable[[str, VerifyWalletResponse], None],
    bar: Progress,
) -> None:
    """Of these users' wallets, or of all: the list does not say how many those are."""
    task = bar.add_task("wallets verified", total=len(dict.fromkeys(users)) or None)
    async for user in _users(client, users):
        request = VerifyWalletRequest(user_id=user)
        answer = await client.wallets.VerifyWallet(request, timeout=VERIFY_TIMEOUT_SECONDS)
        tell(user, answer)
        bar.advance(task)


async def _users(client: ZaazClient, users: tuple[str, ...]) -> AsyncIterator[str]:
    for user in dict.fromkeys(users):
        yield user
    if not users:
        async for wallet in _listed(client):
            yield wallet.user_id


def _row(wallet: Wallet) -> tuple[str, ...]:
    return (
        wallet.user_id,
        wallet.email,
        credits_text(wallet.credits_micros),
        credits_text(wallet.held_micros),
        credits_text(wallet.available_micros),
        credits_text(wallet.debt_micros),
        f"{wallet.sequence:,}",
        time_text(wallet.created_time),
    )


def _show_differences(wrong: dict[str, VerifyWalletResponse]) -> None:
    if not wrong:
        return
    rows = (
        (user, f"{one.sequence:,}", one.field, one.expected, one.actual)
        for user, answer in wrong.items()
        for one in answer.differences
    )
    columns = ("user", ">transaction", "field", "adds up to", "is stored")
    show(columns, islice(rows, MAX_SHOWN))
