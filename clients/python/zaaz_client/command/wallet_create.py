"""`zaaz wallet create`."""

import json
from typing import Final
from uuid import uuid4

import click
from zaaz.ledger.v1.wallet_pb2 import Wallet
from zaaz.wallet.v1.wallet_service_pb2 import CreateWalletRequest

from zaaz_client.client import ZaazClient
from zaaz_client.command.asking import PATIENCE_SECONDS, as_dict, ask, asking, check_id
from zaaz_client.retry import retry_within
from zaaz_client.statements.formats import credits_text

_SCOPES: Final = "wallet.write or admin"


@click.command("create")
@click.argument("user_id", metavar="USER", callback=check_id)
@click.option("--email", default="", help="The user's address, for look-ups.")
@asking
def create_wallet(
    user_id: str, email: str, target: str, given_key: str | None, as_json: bool
) -> None:
    """Make the wallet of USER, a user's id. Where there is one it stays as it is.

    Exit codes: 0 made, or there; 1 refused; 2 wrong options or key; 3 no server.
    """
    request = CreateWalletRequest(request_id=uuid4().hex, user_id=user_id, email=email)

    async def work(client: ZaazClient) -> Wallet:
        return (await retry_within(client.wallets.CreateWallet, request, PATIENCE_SECONDS)).wallet

    wallet = ask(work, target, given_key, _SCOPES)
    if as_json:
        click.echo(json.dumps(as_dict(wallet)))
        return
    credits_ = credits_text(wallet.credits_micros)
    click.echo(f"{user_id} has a wallet, with {credits_} credits.")
