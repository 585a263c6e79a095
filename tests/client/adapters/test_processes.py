"""Metered calls inside of a credit process: the hold is billed by what they used."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI
from zaaz.credits.v1.credits_process_service_pb2 import GetHoldRequest
from zaaz.ledger.v1.hold_pb2 import HOLD_STATE_CAPTURED, HOLD_STATE_RELEASED
from zaaz_client import CreditProcess, ZaazClient
from zaaz_client.adapters import Billing, ProcessBilling, UnknownUsage, UsageFigures
from zaaz_client.adapters.openai import metered

from tests.client.adapters import wire
from tests.client.adapters.conftest import bills
from tests.client.adapters.openai_calls import ASKED, FULL
from tests.client.adapters.vendor import Events, Vendor
from tests.client.processes import BrokeError, process
from tests.ledger.calls import soon
from tests.serving import MODEL, Served


@pytest.fixture
async def client(vendor: Vendor) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{vendor.url}/v1", api_key="sk-none") as client:
        yield client


def some(unknown: UnknownUsage) -> UsageFigures:
    return UsageFigures(input_tokens=7, output_tokens=len(unknown.text))


async def state_of(partner: ZaazClient, use: CreditProcess) -> int:
    return (await partner.process.GetHold(GetHoldRequest(id=use.hold.id))).hold.state


async def test_all_calls_of_the_block_are_billed_together(
    client: AsyncOpenAI, vendor: Vendor, served: Served, partner: ZaazClient, user_id: str
) -> None:
    vendor.answers(wire.chat("chatcmpl-1", wire.chat_usage(30, 20, cached=10)))
    vendor.answers(Events(wire.chat_frames("chatcmpl-2", wire.chat_usage(3, 2))))
    async with process(partner, user_id) as use, metered(client, ProcessBilling(use)) as llm:
        await llm.chat.completions.create(**ASKED)
        stream = await llm.chat.completions.create(**ASKED, stream=True)
        assert len([chunk async for chunk in stream]) == 6
    figures = UsageFigures(input_tokens=23, output_tokens=22, cache_read_tokens=10)
    assert await bills(served, user_id) == [(MODEL, figures)]
    assert await state_of(partner, use) == HOLD_STATE_CAPTURED


async def test_calls_beside_each_other(
    client: AsyncOpenAI, vendor: Vendor, served: Served, partner: ZaazClient, user_id: str
) -> None:
    vendor.answers(*(Events(wire.chat_frames(f"chatcmpl-{number}")) for number in range(5)))

    async def one(billing: Billing) -> None:
        async with metered(client, billing) as llm:
            stream = await llm.chat.completions.create(**ASKED, stream=True)
            assert len([chunk async for chunk in stream]) == 6

    async with process(partner, user_id, max_input_tokens=9_000) as use:
        billing = ProcessBilling(use)
        await asyncio.gather(*(one(billing) for _ in range(5)))
    assert await bills(served, user_id) == [(MODEL, sum([FULL] * 4, start=FULL))]


@pytest.mark.parametrize("estimated", [True, False])
async def test_a_stream_that_is_left_open(
    client: AsyncOpenAI,
    vendor: Vendor,
    served: Served,
    partner: ZaazClient,
    user_id: str,
    estimated: bool,
) -> None:
    """Its end is that of the metered block, which is before that of the process."""

    async def answer(use: CreditProcess) -> None:
        async with use, metered(client, ProcessBilling(use), on_unknown_usage=handler) as llm:
            stream = await llm.chat.completions.create(**ASKED, stream=True)
            for _ in range(3):
                await anext(stream)
            raise BrokeError

    handler: Any = some if estimated else None
    vendor.answers(wire.hanging(wire.chat_frames("chatcmpl-1")[:3]))
    use = process(partner, user_id)
    with pytest.raises(BrokeError):
        await answer(use)
    if estimated:
        figures = UsageFigures(input_tokens=7, output_tokens=5)
        assert await bills(served, user_id) == [(MODEL, figures)]
    else:
        assert await bills(served, user_id) == []
        assert await state_of(partner, use) == HOLD_STATE_RELEASED


async def test_a_cancellation(
    client: AsyncOpenAI, vendor: Vendor, served: Served, partner: ZaazClient, user_id: str
) -> None:
    third = asyncio.Event()

    async def answer() -> None:
        async with (
            process(partner, user_id) as use,
            metered(client, ProcessBilling(use), on_unknown_usage=some) as llm,
        ):
            stream = await llm.chat.completions.create(**ASKED, stream=True)
            async for chunk in stream:
                if chunk.choices[0].delta.content == "ty":
                    third.set()

    vendor.answers(wire.hanging(wire.chat_frames("chatcmpl-1")[:3]))
    task = asyncio.create_task(answer())
    await soon(third.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    figures = UsageFigures(input_tokens=7, output_tokens=5)
    assert await bills(served, user_id) == [(MODEL, figures)]


async def test_what_is_known_is_reported_while_a_stream_runs() -> None:
    told: list[dict[str, int]] = []

    class Use:
        def report(self, **figures: int) -> None:
            told.append({name: count for name, count in figures.items() if count})

    use: Any = Use()
    billing = ProcessBilling(use)
    first, second = object(), object()
    billing.so_far(first, UsageFigures(input_tokens=10, output_tokens=1))
    billing.so_far(second, UsageFigures(input_tokens=5))
    billing.so_far(first, UsageFigures(input_tokens=10, output_tokens=9))
    assert told == [
        {"input_tokens": 10, "output_tokens": 1},
        {"input_tokens": 15, "output_tokens": 1},
        {"input_tokens": 15, "output_tokens": 9},
    ]
