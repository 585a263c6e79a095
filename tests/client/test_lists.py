"""Lists as async iterators: whole, bounded, ahead, through failures."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from google.protobuf.message import Message
from zaaz.credits.v1.credits_service_pb2 import (
    ListCreditsTransactionsRequest,
    ListCreditsUsagesRequest,
    ListCreditsUsagesResponse,
)
from zaaz.ledger.v1.credits_usage_pb2 import CreditsUsage
from zaaz.wallet.v1.statement_service_pb2 import ListSigningKeysRequest
from zaaz.wallet.v1.wallet_service_pb2 import GetWalletRequest, GetWalletResponse
from zaaz_client import InvalidRequest, Unavailable, ZaazClient, iterate, pages
from zaaz_client.errors import ProtocolError
from zaaz_client.paging import PAGE_SIZE

from tests.ledger.calls import soon
from tests.serving import Served


class Usages:
    """A list of so many rows, that notes what it is asked for."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.asked: list[tuple[int, str]] = []
        self.failures: list[Exception | None] = []
        """The first last; None: none."""
        self.most = rows
        """Of a page, whatever is asked for."""
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(
        self, request: ListCreditsUsagesRequest, **_: float
    ) -> ListCreditsUsagesResponse:
        self.asked.append((request.page_size, request.page_token))
        await self.gate.wait()
        if self.failures and (failure := self.failures.pop()):
            raise failure
        start = int(request.page_token or 0)
        end = min(start + min(request.page_size, self.most), self.rows)
        return ListCreditsUsagesResponse(
            credits_usages=[CreditsUsage(usage_key=str(row)) for row in range(start, end)],
            next_page_token=str(end) if end < self.rows else "",
        )


async def keys(found: AsyncIterator[CreditsUsage]) -> list[int]:
    rows = []
    async for usage in found:
        rows.append(int(usage.usage_key))
        await asyncio.sleep(0)  # what was asked ahead gets its turn
    return rows


@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize(
    ("rows", "limit", "asked"),
    [
        (0, None, [4]),
        (3, None, [4]),
        (4, None, [4]),
        (9, None, [4, 4, 4]),
        (9, 0, []),
        (9, 3, [3]),
        (9, 4, [4]),
        (9, 6, [4, 2]),
        (9, 100, [4, 4, 4]),
    ],
)
async def test_each_row_once_and_no_page_too_many(
    rows: int, limit: int | None, asked: list[int], prefetch: bool
) -> None:
    usages = Usages(rows)
    request = ListCreditsUsagesRequest(page_size=4)
    found = await keys(iterate(usages, request, limit=limit, prefetch=prefetch))
    assert found == list(range(rows if limit is None else min(rows, limit)))
    assert [size for size, _ in usages.asked] == asked
    assert request == ListCreditsUsagesRequest(page_size=4)


async def test_a_page_has_a_size() -> None:
    usages = Usages(1)
    await keys(iterate(usages, ListCreditsUsagesRequest()))
    assert usages.asked == [(PAGE_SIZE, "")]


async def test_one_page_ahead_and_no_more() -> None:
    usages = Usages(100)
    found = pages(usages, ListCreditsUsagesRequest(page_size=10), prefetch=True)
    async with aclosing(found):  # type: ignore[type-var]
        await anext(found)
        assert len(usages.asked) == 1
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(usages.asked) == 2
        await anext(found)
        usages.gate.clear()
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(usages.asked) == 3
    tasks = [task for task in asyncio.all_tasks() if "retry" in str(task.get_coro())]
    await asyncio.sleep(0)
    assert all(task.done() for task in tasks)


async def test_without_it_nothing_is_asked_ahead() -> None:
    usages = Usages(100)
    found = pages(usages, ListCreditsUsagesRequest(page_size=10))
    await anext(found)
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(usages.asked) == 1


@pytest.mark.parametrize("prefetch", [False, True])
async def test_a_page_that_fails_is_asked_for_again(prefetch: bool) -> None:
    usages = Usages(9)
    request = ListCreditsUsagesRequest(page_size=4)
    found = pages(usages, request, prefetch=prefetch)
    rows = len((await anext(found)).credits_usages)
    away = Unavailable("away")
    usages.failures = [InvalidRequest("no such token"), None, away, away]
    rows += len((await soon(anext(found))).credits_usages)
    with pytest.raises(InvalidRequest):
        await soon(anext(found))
    assert rows == 8
    assert usages.asked[1:4] == [(4, "4")] * 3


@pytest.mark.parametrize("prefetch", [False, True])
async def test_a_limit_is_of_rows_though_a_server_sends_fewer_than_it_was_asked_for(
    prefetch: bool,
) -> None:
    usages = Usages(50)
    usages.most = 3
    found = iterate(usages, ListCreditsUsagesRequest(page_size=10), limit=11, prefetch=prefetch)
    assert await soon(keys(found)) == list(range(11))
    assert [size for size, _ in usages.asked] == [10, 8, 5, 2]


async def test_a_list_that_does_not_move_on_is_told() -> None:
    async def stuck(_: ListCreditsUsagesRequest, **__: float) -> ListCreditsUsagesResponse:
        return ListCreditsUsagesResponse(next_page_token="same")

    with pytest.raises(ProtocolError, match="same page"):
        await soon(keys(iterate(stuck, ListCreditsUsagesRequest())))


async def test_what_was_asked_ahead_ends_with_its_list() -> None:
    usages = Usages(100)
    before = asyncio.all_tasks()
    found = iterate(usages, ListCreditsUsagesRequest(page_size=10), prefetch=True)
    await anext(found)
    await asyncio.sleep(0)
    usages.gate.clear()
    for _ in range(10):
        await anext(found)
    await asyncio.sleep(0)
    await found.aclose()  # type: ignore[attr-defined]
    assert asyncio.all_tasks() == before


async def test_not_for_ever() -> None:
    usages = Usages(9)
    usages.failures = [Unavailable("away") for _ in range(1_000)]
    with pytest.raises(Unavailable):
        await keys(iterate(usages, ListCreditsUsagesRequest(), retry_seconds=0.05))


async def test_what_is_no_list() -> None:
    async def get(request: Message, **_: float) -> GetWalletResponse:
        return GetWalletResponse()

    with pytest.raises(AttributeError):
        async for _ in iterate(get, GetWalletRequest()):
            pass


async def test_of_a_real_server(served: Served, partner: ZaazClient) -> None:
    user_id = await served.new_wallet(1_000)
    for _ in range(6):
        await served.consume(user_id, 1)
    request = ListCreditsTransactionsRequest(user_id=user_id, page_size=2)
    method = partner.credits.ListCreditsTransactions
    found = [row.sequence async for row in iterate(method, request, prefetch=True)]
    assert found == [7, 6, 5, 4, 3, 2, 1]
    signing = iterate(partner.statements.ListSigningKeys, ListSigningKeysRequest())
    assert [len(key.public_key) async for key in signing] == [32]
