"""Lists as async iterators: page after page, asked for as they are read."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from zaaz_client.errors import ProtocolError
from zaaz_client.retry import retry_within
from zaaz_client.winding_up import end

PAGE_SIZE: Final = 500
"""Rows of a page where nobody says; servers send fewer if that is too many for them."""
RETRY_SECONDS: Final = 30.0
"""How long a page is asked for while nobody answers."""

_Page = TypeVar("_Page", bound=Message)


async def pages(
    method: Callable[..., Awaitable[_Page]],
    request: Any,
    *,
    limit: int | None = None,
    prefetch: bool = False,
    retry_seconds: float = RETRY_SECONDS,
) -> AsyncIterator[_Page]:
    """The pages of a list, as of client.wallets.ListWallets, until they have `limit` rows.

    `request`: with the filters; its page_size is PAGE_SIZE if it has none. It is
    copied. `prefetch`: asks for the next page while this one is worked on, one
    ahead at most. A page that fails with what may pass is asked for again, for
    `retry_seconds`; 0: once. Raises ZaazError.
    """
    asked = type(request)()
    asked.CopyFrom(request)
    size = asked.page_size or PAGE_SIZE
    left = limit

    def ask() -> Awaitable[_Page]:
        asked.page_size = size if left is None else min(size, left)
        return retry_within(method, asked, retry_seconds) if retry_seconds > 0 else method(asked)

    ahead: asyncio.Task[_Page] | None = None
    try:
        page = await ask() if left != 0 else None
        while page is not None:
            if left is not None:  # a server may send fewer than it was asked for
                left -= len(rows_of(page))
            token = getattr(page, "next_page_token")  # noqa: B009 - of every list
            more = bool(token) and (left is None or left > 0)
            if more and token == asked.page_token:
                raise ProtocolError("the server sends the same page of a list again and again")
            asked.page_token = token
            if more and prefetch:
                ahead = asyncio.create_task(_awaited(ask()))
            yield page
            if not more:
                return
            page = await (ask() if ahead is None else ahead)
    finally:
        if ahead is not None:
            await end(ahead)


async def _awaited(call: Awaitable[_Page]) -> _Page:
    return await call


async def iterate(
    method: Callable[..., Awaitable[Message]],
    request: Any,
    *,
    limit: int | None = None,
    prefetch: bool = False,
    retry_seconds: float = RETRY_SECONDS,
) -> AsyncIterator[Any]:
    """The rows of a list, `limit` at most: see `pages`."""
    found = pages(method, request, limit=limit, prefetch=prefetch, retry_seconds=retry_seconds)
    async with aclosing(found):  # type: ignore[type-var]
        async for page in found:
            for row in rows_of(page):
                yield row


def rows_of(page: Message) -> Sequence[Any]:
    """What a page of a list has. TypeError for a message that is none."""
    rows = [field for field in page.DESCRIPTOR.fields if field.is_repeated and field.message_type]
    if len(rows) != 1 or "next_page_token" not in page.DESCRIPTOR.fields_by_name:
        raise TypeError(f"{page.DESCRIPTOR.full_name} is no page of a list")
    found: Sequence[Any] = getattr(page, rows[0].name)
    return found
