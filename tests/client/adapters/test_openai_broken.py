"""Calls of OpenAI's client that come to no good end: streams that break, and bills that do."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk
from zaaz_client import StreamClosed
from zaaz_client.adapters import Billing, FinishedCall, UnknownUsage, UsageFigures, count_with
from zaaz_client.adapters.openai import metered

from tests.client.adapters import wire
from tests.client.adapters.conftest import Account
from tests.client.adapters.openai_calls import (
    ASKED,
    CUT,
    ESTIMATE,
    BrokeError,
    estimate,
    read_into,
    texts,
    words,
)
from tests.client.adapters.vendor import Events, Vendor
from tests.ledger.calls import soon
from tests.serving import MODEL


@pytest.fixture
async def client(vendor: Vendor) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{vendor.url}/v1", api_key="sk-none") as client:
        yield client


class TestBrokenOff:
    """Three pieces have come: nothing, "For" and "ty"."""

    @pytest.fixture
    async def stream(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> AsyncIterator[AsyncStream[ChatCompletionChunk]]:
        """In a block of its own, at its third event."""
        vendor.answers(wire.hanging(wire.chat_frames("chatcmpl-1")[:3]))
        async with metered(client, account.billing(), on_unknown_usage=estimate) as llm:
            yield await llm.chat.completions.create(**ASKED, stream=True)

    async def seen(self, vendor: Vendor) -> None:
        """The vendor has seen its reader go."""

        async def look() -> None:
            while not vendor.left:  # noqa: ASYNC110 - the vendor is what is looked at
                await asyncio.sleep(0.01)

        await soon(look())

    async def test_by_its_reader(
        self, stream: AsyncStream[ChatCompletionChunk], vendor: Vendor, account: Account
    ) -> None:
        for _ in range(3):
            await anext(stream)
        await stream.close()
        await self.seen(vendor)
        assert await account.bills() == [(MODEL, ESTIMATE)]
        await stream.close()
        assert await account.bills() == [(MODEL, ESTIMATE)]

    async def test_by_an_exception(
        self, stream: AsyncStream[ChatCompletionChunk], vendor: Vendor, account: Account
    ) -> None:
        async def read() -> None:
            async with stream:
                for _ in range(3):
                    await anext(stream)
                raise BrokeError

        with pytest.raises(BrokeError):
            await read()
        await self.seen(vendor)
        assert await account.bills() == [(MODEL, ESTIMATE)]

    async def test_by_a_cancellation(
        self, stream: AsyncStream[ChatCompletionChunk], vendor: Vendor, account: Account
    ) -> None:
        third = asyncio.Event()

        async def read() -> None:
            async for chunk in stream:
                if chunk.choices[0].delta.content == "ty":
                    third.set()

        task = asyncio.create_task(read())
        await soon(third.wait())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(task)
        await self.seen(vendor)
        assert await account.bills() == [(MODEL, ESTIMATE)]

    async def test_by_being_dropped(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        async def read(llm: AsyncOpenAI) -> None:
            stream = await llm.chat.completions.create(**ASKED, stream=True)
            async for chunk in stream:
                if chunk.choices[0].delta.content == "ty":
                    break

        vendor.answers(wire.hanging(wire.chat_frames("chatcmpl-1")[:3]))
        async with metered(client, account.billing(), on_unknown_usage=estimate) as llm:
            await read(llm)
            gc.collect()
            await self.seen(vendor)
            assert await account.bills() == [(MODEL, ESTIMATE)]

    async def test_what_a_server_tells_on_its_way_is_known(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        asked: list[UnknownUsage] = []

        def so_far(unknown: UnknownUsage) -> None:
            asked.append(unknown)

        vendor.answers(
            wire.hanging(
                [
                    wire.chat_chunk(
                        "chatcmpl-1",
                        choices=wire.choice({"content": "."}),
                        usage=wire.chat_usage(9, number),
                    )
                    for number in (1, 2)
                ]
            )
        )
        async with metered(client, account.billing(), on_unknown_usage=so_far) as llm:
            stream = await llm.chat.completions.create(**ASKED, stream=True)
            assert texts([await anext(stream), await anext(stream)]) == [".", "."]
        figures = UsageFigures(input_tokens=9, output_tokens=2)
        assert [unknown.known for unknown in asked] == [figures]
        assert await account.bills() == [(MODEL, figures)]

    async def test_by_the_end_of_the_block(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.hanging(wire.chat_frames("chatcmpl-1")[:3]))
        async with metered(client, account.billing(), on_unknown_usage=estimate) as llm:
            stream = await llm.chat.completions.create(**ASKED, stream=True)
            for _ in range(3):
                await anext(stream)
        await self.seen(vendor)
        assert await account.bills() == [(MODEL, ESTIMATE)]

    async def test_by_the_network(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.cut(wire.chat_frames("chatcmpl-1")[:3]))
        chunks: list[ChatCompletionChunk] = []
        async with metered(client, account.billing(), on_unknown_usage=estimate) as llm:
            stream = await llm.chat.completions.create(**ASKED, stream=True)
            with pytest.raises(Exception, match=CUT):
                await read_into(chunks, stream)
        assert texts(chunks) == ["", "For", "ty"]
        assert await account.bills() == [(MODEL, ESTIMATE)]

    async def test_by_the_network_before_the_usage(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        """The last chunk waits for the usage, which does not come: it is told all the same."""
        vendor.answers(wire.cut(wire.chat_frames("chatcmpl-1")[:-2]))
        chunks: list[ChatCompletionChunk] = []
        async with metered(client, account.billing(), on_unknown_usage=estimate) as llm:
            stream = await llm.chat.completions.create(**ASKED, stream=True)
            with pytest.raises(Exception, match=CUT):
                await read_into(chunks, stream)
        assert chunks[-1].choices[0].finish_reason == "stop"
        figures = UsageFigures(input_tokens=3, output_tokens=5)
        assert await account.bills() == [(MODEL, figures)]

    async def test_before_anything_has_come_costs_nothing(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.cut([": ready\n\n"]))
        async with metered(client, account.billing(), on_unknown_usage=estimate) as llm:
            stream = await llm.chat.completions.create(**ASKED, stream=True)
            with pytest.raises(Exception, match=CUT):
                await anext(stream)
        assert await account.bills() == []

    async def test_without_an_estimate_a_warning_is_logged(
        self,
        client: AsyncOpenAI,
        vendor: Vendor,
        account: Account,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        vendor.answers(wire.hanging(wire.chat_frames("chatcmpl-1")[:3]))
        with caplog.at_level(logging.WARNING, "zaaz_client"):
            async with metered(client, account.billing()) as llm:
                stream = await llm.chat.completions.create(**ASKED, stream=True)
                await anext(stream)
        assert await account.bills() == []
        (message,) = caplog.messages
        assert message.startswith("not billed")
        assert "chatcmpl-1" in message

    async def test_an_estimate_that_fails_does_not_hide_the_end(
        self,
        client: AsyncOpenAI,
        vendor: Vendor,
        account: Account,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def fails(_: UnknownUsage) -> UsageFigures:
            raise BrokeError

        vendor.answers(wire.cut(wire.chat_frames("chatcmpl-1")[:3]))
        async with metered(client, account.billing(), on_unknown_usage=fails) as llm:
            stream = await llm.chat.completions.create(**ASKED, stream=True)
            with pytest.raises(Exception, match=CUT):
                [chunk async for chunk in stream]
        assert await account.bills() == []
        assert "on_unknown_usage failed" in caplog.text

    async def test_an_estimate_by_a_tokenizer(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.hanging(wire.tool_frames("chatcmpl-1")[:3]))
        counted = count_with(words)
        async with metered(client, account.billing(), on_unknown_usage=counted) as llm:
            stream = await llm.chat.completions.create(**ASKED, stream=True)
            for _ in range(3):
                await anext(stream)
        # "user", "What is it?"; 'add{"a": 40, "b": 2}'
        assert await account.bills() == [(MODEL, UsageFigures(input_tokens=4, output_tokens=4))]


class Refusing(Billing):
    """As over a stream that has ended for good."""

    async def settle(self, call: object, finished: FinishedCall) -> None:
        raise StreamClosed("no more")


class TestNotBilled:
    """It is raised where nothing else is, and logged wherever it happens."""

    @pytest.mark.parametrize("stream", [False, True])
    async def test_of_a_call_that_ended(
        self,
        client: AsyncOpenAI,
        vendor: Vendor,
        stream: bool,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        async def use(llm: AsyncOpenAI) -> None:
            answer: Any = await llm.chat.completions.create(**ASKED, stream=stream)
            await read_into(chunks, answer)

        chunks: list[ChatCompletionChunk] = []
        vendor.answers(
            Events(wire.chat_frames("chatcmpl-1")) if stream else wire.chat("chatcmpl-1")
        )
        async with metered(client, Refusing()) as llm:
            with pytest.raises(StreamClosed, match="no more"):
                await use(llm)
        assert len(chunks) == (6 if stream else 0)
        assert "not billed: FinishedCall" in caplog.text

    async def test_of_a_call_that_broke_off(
        self, client: AsyncOpenAI, vendor: Vendor, caplog: pytest.LogCaptureFixture
    ) -> None:
        vendor.answers(wire.cut(wire.chat_frames("chatcmpl-1")[:3]))
        async with metered(client, Refusing(), on_unknown_usage=estimate) as llm:
            stream = await llm.chat.completions.create(**ASKED, stream=True)
            with pytest.raises(Exception, match=CUT) as raised:
                [chunk async for chunk in stream]
        assert "no more" in "".join(raised.value.__notes__)
        assert "not billed: FinishedCall" in caplog.text
