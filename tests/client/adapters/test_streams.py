"""Every kind of stream with every end and both ways to pay, in an event loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from zaaz_client import ZaazClient
from zaaz_client.adapters import Billing, ProcessBilling, StreamBilling, UsageFigures

from tests.client.adapters import wire
from tests.client.adapters.conftest import bills
from tests.client.adapters.kinds import BROKEN, KINDS, Kind, estimate
from tests.client.adapters.litellm_calls import QUIET
from tests.client.adapters.openai_calls import BrokeError
from tests.client.adapters.vendor import Events, Vendor
from tests.ledger.calls import soon
from tests.serving import Served, new_key

pytestmark = [*QUIET, pytest.mark.parametrize("kind", KINDS, ids=str)]


@dataclass(frozen=True)
class Payer:
    served: Served
    client: ZaazClient
    user_id: str
    by_process: bool

    @asynccontextmanager
    async def billing(self, model: str) -> AsyncIterator[Billing]:
        if not self.by_process:
            async with self.client.usage_stream(f"streams-{new_key()}") as stream:
                yield StreamBilling(stream, self.user_id)
            assert not stream.rejected_events
            return
        async with self.client.credit_process(
            self.user_id, ai_model=model, max_input_tokens=1_000, max_output_tokens=500
        ) as use:
            yield ProcessBilling(use)

    async def bills(self) -> list[tuple[str, UsageFigures]]:
        return await bills(self.served, self.user_id)


@pytest.fixture(params=["event", "process"])
async def payer(
    request: pytest.FixtureRequest, served: Served, partner: ZaazClient, user_id: str
) -> Payer:
    return Payer(served, partner, user_id, request.param == "process")


@asynccontextmanager
async def streaming(kind: Kind, vendor: Vendor, payer: Payer) -> AsyncIterator[Any]:
    """A stream of this kind in blocks of its own."""
    async with AsyncExitStack() as blocks:
        clients = []
        if kind.client is not None:
            clients = [await blocks.enter_async_context(kind.client(vendor.url))]
        billing = await blocks.enter_async_context(payer.billing(kind.model))
        metered = kind.metered(*clients, billing, on_unknown_usage=estimate)
        llm = await blocks.enter_async_context(metered)
        yield await kind.ask(llm, vendor.url)


async def read(kind: Kind, stream: Any) -> str:
    """Until it is at its end, or "ty" was said, after which nothing comes."""
    said: list[str] = []
    async for event in stream:
        said.append(kind.said(event) or "")
        if said[-1] == "ty":
            break
    return "".join(said)


async def test_read_to_its_end(kind: Kind, vendor: Vendor, payer: Payer) -> None:
    vendor.answers(Events(kind.frames))
    async with streaming(kind, vendor, payer) as stream:
        said = [kind.said(event) or "" async for event in stream]
    assert "".join(said) == "".join(wire.SAID)
    assert await payer.bills() == kind.full


async def test_cut_by_the_network(kind: Kind, vendor: Vendor, payer: Payer) -> None:
    async def use() -> None:
        async with streaming(kind, vendor, payer) as stream:
            [event async for event in stream]

    vendor.answers(wire.cut(kind.begun))
    with pytest.raises(Exception, match=BROKEN):
        await use()
    assert await payer.bills() == kind.broken


async def close(stream: Any) -> None:
    await (stream.aclose() if hasattr(stream, "aclose") else stream.close())


async def leave(stream: Any) -> None:
    """The end of the block closes it."""


async def fail(stream: Any) -> None:
    raise BrokeError


@pytest.mark.parametrize("leaving", [close, leave, fail], ids=["closed", "left", "failed"])
async def test_its_reader_leaves(
    kind: Kind, vendor: Vendor, payer: Payer, leaving: Callable[[Any], Awaitable[None]]
) -> None:
    async def use() -> None:
        async with streaming(kind, vendor, payer) as stream:
            assert (await read(kind, stream)).endswith("ty")
            await leaving(stream)

    vendor.answers(wire.hanging(kind.begun))
    if leaving is fail:
        with pytest.raises(BrokeError):
            await use()
    else:
        await use()
    assert await payer.bills() == kind.broken


async def test_cancelled(kind: Kind, vendor: Vendor, payer: Payer) -> None:
    second = asyncio.Event()

    async def use() -> None:
        async with streaming(kind, vendor, payer) as stream:
            async for event in stream:
                if kind.said(event) == "ty":
                    second.set()

    vendor.answers(wire.hanging(kind.begun))
    task = asyncio.create_task(use())
    await soon(second.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert await payer.bills() == kind.broken
