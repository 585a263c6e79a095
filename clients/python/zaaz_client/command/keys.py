"""`zaaz keys`: create, list, revoke."""

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final
from uuid import uuid4

import click
from zaaz.auth.v1.auth_service_pb2 import (
    ApiKey,
    CreateApiKeyRequest,
    CreateApiKeyResponse,
    ListApiKeysRequest,
    RevokeApiKeyRequest,
)

from zaaz_client.client import ZaazClient
from zaaz_client.command.asking import (
    PATIENCE_SECONDS,
    as_dict,
    ask,
    asking,
    check_id,
    moment,
    show,
    time_text,
)
from zaaz_client.command.listing import limited, listing
from zaaz_client.lists import iterate
from zaaz_client.retry import retry_within

_SCOPES: Final = "admin"


@click.group()
def keys() -> None:
    """API keys: who may call, and what."""


@keys.command()
@click.argument("client_id", metavar="CLIENT")
@click.option(
    "--scope", "scopes", multiple=True, required=True, help="As in usage.write. Repeatable."
)
@click.option("--name", default="", help="What a person calls it.")
@click.option("--expires", type=moment, metavar="TIME", help="Refused from then on.")
@asking
def create(
    client_id: str,
    scopes: tuple[str, ...],
    name: str,
    expires: datetime | None,
    target: str,
    given_key: str | None,
    as_json: bool,
) -> None:
    """Make a key for CLIENT, like chat-service, and print it: this once.

    Only the key is on stdout. Exit codes: 0 made; 1 refused; 2 wrong options or
    key; 3 no server.
    """
    request = CreateApiKeyRequest(
        request_id=uuid4().hex, client_id=client_id, name=name, scopes=dict.fromkeys(scopes)
    )
    if expires is not None:
        request.expires_time.FromDatetime(expires)

    async def work(client: ZaazClient) -> CreateApiKeyResponse:
        return await retry_within(client.auth.CreateApiKey, request, PATIENCE_SECONDS)

    made = ask(work, target, given_key, _SCOPES)
    if as_json:
        click.echo(json.dumps(as_dict(made)))
        return
    click.echo(made.key)
    click.echo(f"Keep it: nobody can show it again. Its id is {made.api_key.id}.", err=True)


@keys.command("list")
@click.option("--client", "client_id", default="", help="Only those of this client.")
@click.option("--revoked", is_flag=True, help="Revoked ones too.")
@limited
@asking
def list_(
    client_id: str, revoked: bool, limit: int, target: str, given_key: str | None, as_json: bool
) -> None:
    """List keys, newest first, without their secrets.

    With --json, one key a line. Exit codes: 0 listed; 1 refused; 2 wrong
    options or key; 3 no server.
    """
    request = ListApiKeysRequest(client_id=client_id, show_revoked=revoked)

    def rows(client: ZaazClient, most: int | None) -> AsyncIterator[ApiKey]:
        method = client.auth.ListApiKeys
        return iterate(method, request, limit=most, retry_seconds=PATIENCE_SECONDS)

    found = listing(rows, limit, as_json, target, given_key, _SCOPES)
    if found is not None:
        show(("id", "client", "name", "scopes", "expires", "revoked", "made"), map(_row, found))


@keys.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True, callback=check_id)
@asking
def revoke(ids: tuple[str, ...], target: str, given_key: str | None, as_json: bool) -> None:
    """End keys. Revoking twice is fine.

    With --json, one key a line. Exit codes: 0 revoked; 1 refused; 2 wrong
    options or key; 3 no server.
    """

    async def work(client: ZaazClient) -> None:
        for one in ids:  # each is told before the next, which may be refused
            key = await _revoke(client, one)
            told = json.dumps(as_dict(key)) if as_json else f"Revoked {key.id} of {key.client_id}."
            click.echo(told)

    ask(work, target, given_key, _SCOPES)


async def _revoke(client: ZaazClient, key_id: str) -> ApiKey:
    request = RevokeApiKeyRequest(id=key_id, request_id=uuid4().hex)
    return (await retry_within(client.auth.RevokeApiKey, request, PATIENCE_SECONDS)).api_key


def _row(key: ApiKey) -> tuple[str, ...]:
    return (
        key.id,
        key.client_id,
        key.name,
        " ".join(key.scopes),
        time_text(key.expires_time) or "never",
        time_text(key.revoked_time),
        time_text(key.created_time),
    )
