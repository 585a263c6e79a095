"""Reads a statement from the server, as lines of a file."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final

from zaaz.wallet.v1.statement_service_pb2 import (
    GetStatementRequest,
    GetStatementResponse,
    ListSigningKeysRequest,
)

from zaaz_client.client import ZaazClient
from zaaz_client.errors import ProtocolError
from zaaz_client.retry import retry
from zaaz_client.statements.formats import Format
from zaaz_client.statements.rows import UnreadableForm, head_row, opening_row, transaction_row

PAGE_SIZE: Final = 1_000


async def statement_lines(
    client: ZaazClient,
    user_id: str,
    written: Format,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    patience_seconds: float = 0.0,
) -> AsyncIterator[str]:
    """The lines of a user's statement over [start, end), all of the moment of the first.

    None: from the wallet's making, until now. Pages that fail with an error
    that may pass are asked for again for `patience_seconds`. Raises ZaazError.
    """
    request = GetStatementRequest(user_id=user_id, page_size=PAGE_SIZE)
    if start is not None:
        request.start_time.FromDatetime(start)
    if end is not None:
        request.end_time.FromDatetime(end)
    page = await _page(client, request, patience_seconds)
    try:
        yield written.title
        yield written.write(opening_row(page))
        while True:
            for line in page.lines:
                yield written.write(transaction_row(line))
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
            page = await _page(client, request, patience_seconds)
        yield written.write(head_row(page.head))
    except UnreadableForm as error:
        raise ProtocolError(f"the server sent what is no statement: {error}") from error


async def signing_keys(client: ZaazClient) -> dict[str, bytes]:
    """The server's public keys, 32 bytes each, by their id. Needs no key of the API."""
    keys: dict[str, bytes] = {}
    request = ListSigningKeysRequest()
    while True:
        page = await client.statements.ListSigningKeys(request)
        keys |= {key.key_id: key.public_key for key in page.signing_keys}
        if not page.next_page_token:
            return keys
        request.page_token = page.next_page_token


async def _page(
    client: ZaazClient, request: GetStatementRequest, patience_seconds: float
) -> GetStatementResponse:
    return await retry(lambda: client.statements.GetStatement(request), patience_seconds)
