"""OpenAI's own client against a vendor on this machine, billed by a real server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, AsyncStream
from pydantic import BaseModel
from zaaz_client.adapters import UsageFigures
from zaaz_client.adapters.openai import metered

from tests.client.adapters import wire
from tests.client.adapters.conftest import Account
from tests.client.adapters.openai_calls import (
    ASKED,
    FULL,
    estimate,
    texts,
)
from tests.client.adapters.vendor import DONE, Events, Vendor
from tests.ledger.calls import soon
from tests.serving import MODEL


class Answer(BaseModel):
    number: int


@pytest.fixture
async def client(vendor: Vendor) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{vendor.url}/v1", api_key="sk-none") as client:
        yield client


class TestWhole:
    async def test_a_completion_is_billed(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.chat("chatcmpl-1"))
        async with metered(client, account.billing()) as llm:
            assert type(llm) is AsyncOpenAI
            answer = await llm.chat.completions.create(**ASKED)
        assert answer.choices[0].message.content == "Forty-two."
        assert await account.bills() == [(MODEL, FULL)]
        assert "stream_options" not in vendor.asked[0].body

    async def test_what_the_cache_had_is_apart(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.chat("chatcmpl-1", wire.chat_usage(1_000, 500, cached=600)))
        async with metered(client, account.billing()) as llm:
            await llm.chat.completions.create(**ASKED)
        figures = UsageFigures(input_tokens=400, output_tokens=500, cache_read_tokens=600)
        assert await account.bills() == [(MODEL, figures)]

    async def test_what_is_tried_again_is_billed_once(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.failure(500), wire.failure(429), wire.chat("chatcmpl-1"))
        async with metered(client, account.billing()) as llm:
            await llm.chat.completions.create(**ASKED)
        assert len(vendor.asked) == 3
        assert await account.bills() == [(MODEL, FULL)]

    @pytest.mark.parametrize("status", [400, 401, 429, 500])
    @pytest.mark.parametrize("stream", [False, True])
    async def test_what_fails_costs_nothing(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account, status: int, stream: bool
    ) -> None:
        vendor.answers(wire.failure(status))
        async with metered(client.with_options(max_retries=0), account.billing()) as llm:
            with pytest.raises(openai.APIStatusError):
                await llm.chat.completions.create(**ASKED, stream=stream)
        assert await account.bills() == []

    async def test_an_answer_that_its_parser_refuses_is_billed(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.chat("chatcmpl-1"))  # which is no JSON
        async with metered(client, account.billing()) as llm:
            with pytest.raises(ValueError, match="JSON"):
                await llm.chat.completions.parse(**ASKED, response_format=Answer)
        assert await account.bills() == [(MODEL, FULL)]

    async def test_responses_and_embeddings(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        usage = wire.response_usage(1_000, 500, cached=600, written=300)
        vendor.answers(wire.response("resp_1", usage), wire.embedding())
        async with metered(client, account.billing()) as llm:
            answer = await llm.responses.create(model="gpt-4o-mini", input="What?")
            await llm.embeddings.create(model="text-embedding-3-small", input="What?")
        assert answer.output_text == "Forty-two."
        figures = UsageFigures(
            input_tokens=100, output_tokens=500, cache_read_tokens=600, cache_write_tokens=300
        )
        embedded = ("openai/text-embedding-3-small", UsageFigures(input_tokens=1_000))
        assert await account.bills() == [(MODEL, figures), embedded]

    async def test_beta_responses(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.response("resp_1"))
        async with metered(client, account.billing()) as llm:
            await llm.beta.responses.create(model="gpt-4o-mini", input="What?")
        assert await account.bills() == [(MODEL, FULL)]

    async def test_a_raw_response_is_billed_and_can_be_parsed(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.chat("chatcmpl-1"), Events(wire.chat_frames("chatcmpl-2")))
        async with metered(client, account.billing()) as llm:
            raw = await llm.chat.completions.with_raw_response.create(**ASKED)
            assert raw.parse().id == "chatcmpl-1"
            streamed = await llm.chat.completions.with_raw_response.create(**ASKED, stream=True)
            assert texts([chunk async for chunk in streamed.parse()]) == ["", *wire.SAID, ""]
        assert await account.bills() == [(MODEL, FULL), (MODEL, FULL)]

    async def test_bytes_cannot_be_metered(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        async with metered(client, account.billing()) as llm:
            with pytest.raises(TypeError, match="with_streaming_response"):
                async with llm.chat.completions.with_streaming_response.create(**ASKED):
                    pass
        assert vendor.asked == []

    async def test_copies_are_metered_and_the_client_itself_is_not(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(*(wire.chat(f"chatcmpl-{number}") for number in range(3)))
        async with metered(client, account.billing()) as llm:
            await llm.with_options(timeout=9).copy().chat.completions.create(**ASKED)
            await llm.with_options(timeout=9).chat.completions.create(**ASKED)
            await client.chat.completions.create(**ASKED)
        assert len(await account.bills()) == 2

    async def test_after_the_block_nothing_is_asked(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        async with metered(client, account.billing()) as llm:
            pass
        with pytest.raises(RuntimeError, match="block has ended"):
            await llm.chat.completions.create(**ASKED)
        assert vendor.asked == []

    async def test_a_synchronous_client_is_refused(self, account: Account) -> None:
        blocking: Any = openai.OpenAI(api_key="sk-none")
        with pytest.raises(TypeError, match="AsyncOpenAI"):
            async with metered(blocking, account.billing()):
                pass
        blocking.close()

    async def test_the_key_the_endpoint_and_labels_are_the_callers(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.chat("chatcmpl-1"), wire.chat("chatcmpl-1"))
        sent = []
        account.stream.send = lambda event: send(event)  # type: ignore[method-assign]

        async def send(event: Any) -> int:
            sent.append(event)
            return 0

        billing = account.billing(
            usage_key=lambda call: f"mine-{call.response_id}", labels={"a": "b"}
        )
        async with metered(client, billing, model_name="house/{}".format) as llm:
            await llm.chat.completions.create(**ASKED)
        async with metered(client, account.billing()) as llm:
            await llm.chat.completions.create(**ASKED)
        assert [event.usage_key for event in sent] == ["mine-chatcmpl-1", "openai:chatcmpl-1"]
        assert [event.ai_model for event in sent] == ["house/gpt-4o-mini", MODEL]
        assert dict(sent[0].labels) == {"a": "b"}


class TestStreamed:
    async def test_the_usage_is_asked_for_and_not_shown(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(Events(wire.chat_frames("chatcmpl-1")))
        async with metered(client, account.billing()) as llm:
            stream = await llm.chat.completions.create(**ASKED, stream=True)
            assert isinstance(stream, AsyncStream)
            chunks = [chunk async for chunk in stream]
        assert texts(chunks) == ["", *wire.SAID, ""]
        assert vendor.asked[0].body["stream_options"] == {"include_usage": True}
        assert await account.bills() == [(MODEL, FULL)]

    async def test_the_usage_is_shown_to_whom_asks_for_it(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(Events(wire.chat_frames("chatcmpl-1")))
        async with metered(client, account.billing()) as llm:
            stream = await llm.chat.completions.create(
                **ASKED, stream=True, stream_options={"include_usage": True}
            )
            *_, last = [chunk async for chunk in stream]
        assert (last.choices, last.usage and last.usage.prompt_tokens) == ([], 1_000)
        assert await account.bills() == [(MODEL, FULL)]

    async def test_other_options_of_the_stream_are_kept(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(Events(wire.chat_frames("chatcmpl-1")))
        async with metered(client, account.billing()) as llm:
            stream = await llm.chat.completions.create(
                **ASKED, stream=True, stream_options={"include_obfuscation": False}
            )
            assert len([chunk async for chunk in stream]) == 6
        asked = vendor.asked[0].body["stream_options"]
        assert asked == {"include_obfuscation": False, "include_usage": True}

    async def test_who_forbids_the_usage_is_asked_for_it(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        frames = wire.chat_frames("chatcmpl-1")
        vendor.answers(Events([*frames[:-2], frames[-1]]))
        async with metered(client, account.billing(), on_unknown_usage=estimate) as llm:
            stream = await llm.chat.completions.create(
                **ASKED, stream=True, stream_options={"include_usage": False}
            )
            assert len([chunk async for chunk in stream]) == 6
        assert vendor.asked[0].body["stream_options"] == {"include_usage": False}
        figures = UsageFigures(input_tokens=3, output_tokens=5)
        assert await account.bills() == [(MODEL, figures)]

    async def test_who_stops_at_the_finish_reason_is_billed_by_the_usage_behind_it(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(Events(wire.chat_frames("chatcmpl-1")))
        async with metered(client, account.billing()) as llm:
            stream = await llm.chat.completions.create(**ASKED, stream=True)
            async for chunk in stream:
                if chunk.choices[0].finish_reason:
                    break
        assert await account.bills() == [(MODEL, FULL)]

    async def test_chunks_without_choices_of_servers_that_are_not_openais(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        *said, usage, done = wire.chat_frames("chatcmpl-1")
        bare = usage.replace('"choices": []', '"choices": null')
        assert bare != usage
        vendor.answers(Events([wire.chat_chunk("chatcmpl-1", choices=None), *said, bare, done]))
        async with metered(client, account.billing()) as llm:
            stream = await llm.chat.completions.create(**ASKED, stream=True)
            assert len([chunk async for chunk in stream]) == 1 + len(said)
        assert await account.bills() == [(MODEL, FULL)]

    async def test_tool_calls(self, client: AsyncOpenAI, vendor: Vendor, account: Account) -> None:
        vendor.answers(Events(wire.tool_frames("chatcmpl-1")))
        async with (
            metered(client, account.billing()) as llm,
            llm.chat.completions.stream(**ASKED) as stream,
        ):
            answer = await stream.get_final_completion()
        (call,) = answer.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert call.function.arguments == wire.TOOL["arguments"]
        assert await account.bills() == [(MODEL, FULL)]

    async def test_several_choices(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(
            Events(
                [
                    wire.chat_chunk("chatcmpl-1", choices=wire.choice({"content": "A"}, "stop", 1)),
                    wire.chat_chunk("chatcmpl-1", choices=wire.choice({"content": "B"})),
                    wire.chat_chunk("chatcmpl-1", choices=wire.choice({}, "stop")),
                    wire.chat_chunk("chatcmpl-1", usage=wire.chat_usage()),
                    DONE,
                ]
            )
        )
        async with metered(client, account.billing()) as llm:
            stream = await llm.chat.completions.create(**ASKED, n=2, stream=True)
            assert texts([chunk async for chunk in stream]) == ["A", "B", ""]
        assert await account.bills() == [(MODEL, FULL)]

    async def test_a_choice_that_is_done_does_not_hold_another_back(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        done = wire.chat_chunk("chatcmpl-1", choices=wire.choice({"content": "A"}, "stop"))
        goes_on = wire.chat_chunk("chatcmpl-1", choices=wire.choice({"content": "B"}, None, 1))
        vendor.answers(wire.hanging([done, goes_on]))
        async with metered(client, account.billing()) as llm:
            stream = await llm.chat.completions.create(**ASKED, n=2, stream=True)
            assert texts([await soon(anext(stream)), await soon(anext(stream))]) == ["A", "B"]

    async def test_responses(self, client: AsyncOpenAI, vendor: Vendor, account: Account) -> None:
        vendor.answers(Events(wire.response_frames("resp_1")))
        async with (
            metered(client, account.billing()) as llm,
            llm.responses.stream(model="gpt-4o-mini", input="What?") as stream,
        ):
            answer = await stream.get_final_response()
        assert answer.output_text == "Forty-two."
        assert await account.bills() == [(MODEL, FULL)]

    async def test_many_at_once(
        self, client: AsyncOpenAI, vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(*(Events(wire.chat_frames(f"chatcmpl-{number}")) for number in range(20)))

        async def one(llm: AsyncOpenAI) -> None:
            stream = await llm.chat.completions.create(**ASKED, stream=True)
            assert len([chunk async for chunk in stream]) == 6

        async with metered(client, account.billing()) as llm:
            await soon(asyncio.gather(*(one(llm) for _ in range(20))))
        assert await account.bills() == [(MODEL, FULL)] * 20
