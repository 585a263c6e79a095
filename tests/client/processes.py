"""What tests of `credit_process` do: begin one, look at it from outside, and be in its way."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from zaaz.credits.v1 import credits_process_service_pb2 as pb
from zaaz.ledger.v1.hold_pb2 import Hold
from zaaz.wallet.v1.wallet_service_pb2 import GetWalletRequest
from zaaz_client import CreditProcess, CreditProcessSettings, ZaazClient

from tests.ledger.calls import soon
from tests.serving import MODEL

CREDIT = 1_000_000
USED = {"input_tokens": 500, "output_tokens": 250}
"""Half of what is held."""


class BrokeError(Exception):
    """The model is out."""


def process(client: ZaazClient, user_id: str, **more: Any) -> CreditProcess:
    values = {"max_input_tokens": 1_000, "max_output_tokens": 500, **more}
    return client.credit_process(user_id, ai_model=MODEL, **values)


async def hold_of(client: ZaazClient, hold_id: str) -> Hold:
    return (await client.process.GetHold(pb.GetHoldRequest(id=hold_id))).hold


async def balance(client: ZaazClient, user_id: str) -> tuple[int, int]:
    """Credits and what of them is held."""
    wallet = (await client.wallets.GetWallet(GetWalletRequest(user_id=user_id))).wallet
    return wallet.credits_micros, wallet.held_micros


async def seen(holds: Callable[[], Awaitable[bool]]) -> None:
    async def look() -> None:
        while not await holds():  # noqa: ASYNC110 - the server is what is looked at
            await asyncio.sleep(0.02)

    await soon(look())


async def broken(use: CreditProcess, **used: int) -> None:
    async with use:
        use.report(**used)
        raise BrokeError


async def broken_after(work: Awaitable[None]) -> None:
    await work
    raise BrokeError


async def release(client: ZaazClient, hold_id: str) -> None:
    request = pb.ReleaseHoldRequest(request_id=f"r-{hold_id}", hold_id=hold_id)
    await client.process.ReleaseHold(request)


async def started(
    client: ZaazClient, user_id: str, cancel_timeout_seconds: float
) -> tuple[asyncio.Task[None], CreditProcess]:
    """A task that waits for ever in a block, and its process."""
    inside: asyncio.Future[CreditProcess] = asyncio.Future()
    settings = CreditProcessSettings(cancel_timeout_seconds=cancel_timeout_seconds)

    async def work() -> None:
        async with process(client, user_id, settings=settings) as use:
            inside.set_result(use)
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    return task, await soon(inside)


class Answers:
    """Holds the answers of a method back, or the calls of it, until `go_on`."""

    def __init__(self, client: ZaazClient, method: str, before: bool = False) -> None:
        self.arrived, self.go_on = asyncio.Event(), asyncio.Event()
        self._before = before
        self._call = getattr(client.process, method)
        setattr(client.process, method, self._answer)

    async def _answer(self, *arguments: Any, **options: Any) -> Any:
        answer = None if self._before else await self._call(*arguments, **options)
        self.arrived.set()
        await self.go_on.wait()
        return await self._call(*arguments, **options) if self._before else answer


class Losing:
    """Loses the first answers of a method: what they tell of has happened."""

    def __init__(self, client: ZaazClient, method: str, error: Exception, count: int) -> None:
        self.calls = 0
        self._error, self._count = error, count
        self._call = getattr(client.process, method)
        setattr(client.process, method, self._answer)

    async def _answer(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        answer = await self._call(*arguments, **options)
        if self.calls <= self._count:
            raise self._error
        return answer
