"""Anthropic's own client against a vendor on this machine, billed by a real server."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic, AsyncStream
from zaaz_client.adapters import UnknownUsage, UsageFigures
from zaaz_client.adapters.anthropic import metered

from tests.client.adapters import wire
from tests.client.adapters.conftest import Account
from tests.client.adapters.vendor import Events, Vendor, Whole
from tests.ledger.calls import soon

MODEL = "anthropic/claude-sonnet-5-5"
ASKED: Any = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 500,
    "messages": [{"role": "user", "content": "What is it?"}],
}
FULL = UsageFigures(input_tokens=1_000, output_tokens=500)
CACHED = UsageFigures(
    input_tokens=1_000, output_tokens=500, cache_read_tokens=300, cache_write_tokens=200
)
BEGUN = UsageFigures(
    input_tokens=1_000, output_tokens=1, cache_read_tokens=300, cache_write_tokens=200
)
"""What a stream tells at its beginning."""
CUT = r"peer closed|Connection error"


@pytest.fixture
async def client(vendor: Vendor) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=vendor.url, api_key="sk-none") as client:
        yield client


class TestWhole:
    async def test_a_message_is_billed_with_the_cache_beside_its_input(
        self, client: AsyncAnthropic, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.message("msg_1", wire.message_usage(read=300, written=200)))
        async with metered(client, account.billing()) as llm:
            assert type(llm) is AsyncAnthropic
            answer = await llm.messages.create(**ASKED)
        assert answer.id == "msg_1"
        assert await account.bills() == [(MODEL, CACHED)]

    async def test_what_is_tried_again_is_billed_once(
        self, client: AsyncAnthropic, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.overloaded(), wire.overloaded(), wire.message("msg_1"))
        async with metered(client, account.billing()) as llm:
            await llm.messages.create(**ASKED)
        assert len(vendor.asked) == 3
        assert await account.bills() == [(MODEL, FULL)]

    @pytest.mark.parametrize("stream", [False, True])
    async def test_what_fails_costs_nothing(
        self, client: AsyncAnthropic, vendor: Vendor, account: Account, stream: bool
    ) -> None:
        vendor.answers(wire.overloaded())
        async with metered(client.with_options(max_retries=0), account.billing()) as llm:
            with pytest.raises(anthropic.APIStatusError):
                await llm.messages.create(**ASKED, stream=stream)
        assert await account.bills() == []

    async def test_beta_and_raw_messages_are_billed_and_a_count_of_tokens_is_not(
        self, client: AsyncAnthropic, vendor: Vendor, account: Account
    ) -> None:
        unknown: list[UnknownUsage] = []
        counted = Whole({"input_tokens": 12})
        vendor.answers(counted, wire.message("msg_1"), wire.message("msg_2"))
        async with metered(client, account.billing(), on_unknown_usage=unknown.append) as llm:
            messages = ASKED["messages"]
            await llm.messages.count_tokens(model="claude-sonnet-5-5", messages=messages)
            await llm.beta.messages.create(**ASKED)
            raw = await llm.messages.with_raw_response.create(**ASKED)
            assert (await raw.parse()).id == "msg_2"
        assert await account.bills() == [(MODEL, FULL), (MODEL, FULL)]
        assert unknown == []

    async def test_bytes_cannot_be_metered(
        self, client: AsyncAnthropic, vendor: Vendor, account: Account
    ) -> None:
        async with metered(client, account.billing()) as llm:
            with pytest.raises(TypeError, match="with_streaming_response"):
                async with llm.messages.with_streaming_response.create(**ASKED):
                    pass
        assert vendor.asked == []

    async def test_a_synchronous_client_is_refused(self, account: Account) -> None:
        blocking: Any = anthropic.Anthropic(api_key="sk-none")
        with pytest.raises(TypeError, match="AsyncAnthropic"):
            async with metered(blocking, account.billing()):
                pass
        blocking.close()


class TestStreamed:
    async def test_events(self, client: AsyncAnthropic, vendor: Vendor, account: Account) -> None:
        unknown: list[UnknownUsage] = []
        vendor.answers(Events(wire.message_frames("msg_1", 300, 200)))
        async with metered(client, account.billing(), on_unknown_usage=unknown.append) as llm:
            stream = await llm.messages.create(**ASKED, stream=True)
            assert isinstance(stream, AsyncStream)
            kinds = [event.type async for event in stream]
        assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
        assert await account.bills() == [(MODEL, CACHED)]
        assert unknown == []

    async def test_text(self, client: AsyncAnthropic, vendor: Vendor, account: Account) -> None:
        vendor.answers(Events(wire.message_frames("msg_1", 300, 200)))
        async with (
            metered(client, account.billing()) as llm,
            llm.messages.stream(**ASKED) as stream,
        ):
            assert [text async for text in stream.text_stream] == list(wire.SAID)
            assert (await stream.get_final_message()).usage.output_tokens == 500
        assert await account.bills() == [(MODEL, CACHED)]

    async def test_tool_calls(
        self, client: AsyncAnthropic, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(Events(wire.tool_use_frames("msg_1")))
        async with (
            metered(client, account.billing()) as llm,
            llm.messages.stream(**ASKED) as stream,
        ):
            (block,) = (await stream.get_final_message()).content
        assert block.type == "tool_use"
        assert block.input == {"a": 40, "b": 2}
        assert await account.bills() == [(MODEL, FULL)]

    async def test_who_stops_at_the_stop_reason_is_billed_in_full(
        self, client: AsyncAnthropic, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.hanging(wire.message_frames("msg_1", 300, 200)[:-1]))
        async with metered(client, account.billing()) as llm:
            stream = await llm.messages.create(**ASKED, stream=True)
            async for event in stream:
                if event.type == "message_delta":
                    break
        assert await account.bills() == [(MODEL, CACHED)]


class TestBrokenOff:
    """The input is known, and "For" and "ty" have come."""

    FRAMES = 5

    async def test_what_is_known_is_billed_and_a_warning_logged(
        self,
        client: AsyncAnthropic,
        vendor: Vendor,
        account: Account,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        vendor.answers(wire.cut(wire.message_frames("msg_1", 300, 200)[: self.FRAMES]))
        with caplog.at_level(logging.WARNING, "zaaz_client"):
            async with metered(client, account.billing()) as llm:
                stream = await llm.messages.create(**ASKED, stream=True)
                with pytest.raises(Exception, match=CUT):
                    [event async for event in stream]
        assert await account.bills() == [(MODEL, BEGUN)]
        assert "billed as far as it is known" in caplog.text

    async def test_an_error_in_the_stream(
        self, client: AsyncAnthropic, vendor: Vendor, account: Account
    ) -> None:
        frames = wire.message_frames("msg_1", 300, 200)[: self.FRAMES]
        vendor.answers(Events([*frames, wire.error_frame()]))
        async with metered(client, account.billing()) as llm:
            stream = await llm.messages.create(**ASKED, stream=True)
            with pytest.raises(anthropic.APIStatusError):
                [event async for event in stream]
        assert await account.bills() == [(MODEL, BEGUN)]

    async def test_the_rest_may_be_estimated(
        self, client: AsyncAnthropic, vendor: Vendor, account: Account
    ) -> None:
        def estimate(unknown: UnknownUsage) -> UsageFigures:
            assert (unknown.known, unknown.response_id) == (BEGUN, "msg_1")
            return unknown.known + UsageFigures(output_tokens=len(unknown.text))

        vendor.answers(wire.hanging(wire.message_frames("msg_1", 300, 200)[: self.FRAMES]))
        async with (
            metered(client, account.billing(), on_unknown_usage=estimate) as llm,
            llm.messages.stream(**ASKED) as stream,
        ):
            async for text in stream.text_stream:
                if text == "ty":
                    break
        assert await account.bills() == [(MODEL, BEGUN + UsageFigures(output_tokens=5))]

    async def test_by_a_cancellation(
        self, client: AsyncAnthropic, vendor: Vendor, account: Account
    ) -> None:
        second = asyncio.Event()

        async def read() -> None:
            async with (
                metered(client, account.billing()) as llm,
                llm.messages.stream(**ASKED) as stream,
            ):
                async for text in stream.text_stream:
                    if text == "ty":
                        second.set()

        vendor.answers(wire.hanging(wire.message_frames("msg_1", 300, 200)[: self.FRAMES]))
        task = asyncio.create_task(read())
        await soon(second.wait())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(task)
        assert await account.bills() == [(MODEL, BEGUN)]
