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
from zaaz_client.lists import iterate, pages
from zaaz_client.paging import RETRY_SECONDS
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
    page: GetStatementResponse | None = None
    found = pages(client.statements.GetStatement, request, retry_seconds=patience_seconds)
    try:
        async for next_page in found:
            if page is None:
                yield written.title
                yield written.write(opening_row(next_page))
            page = next_page
            for line in page.lines:
                yield written.write(transaction_row(line))
        assert page is not None
        yield written.write(head_row(page.head))
    except UnreadableForm as error:
        raise ProtocolError(f"the server sent what is no statement: {error}") from error


async def signing_keys(
    client: ZaazClient, *, patience_seconds: float = RETRY_SECONDS
) -> dict[str, bytes]:
    """The server's public keys, 32 bytes each, by their id. Needs no key of the API.

    Asked for again for `patience_seconds` after an error that may pass. Raises ZaazError.
    """
    method, request = client.statements.ListSigningKeys, ListSigningKeysRequest()
    listed = iterate(method, request, retry_seconds=patience_seconds)
    return {key.key_id: key.public_key async for key in listed}
