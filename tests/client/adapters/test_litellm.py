"""LiteLLM itself against a vendor on this machine, billed by a real server."""

from typing import Any

import litellm
import pytest
from zaaz_client.adapters import UsageFigures
from zaaz_client.adapters.litellm import metered

from tests.client.adapters import wire
from tests.client.adapters.conftest import Account
from tests.client.adapters.litellm_calls import (
    CACHED,
    CLAUDE,
    FULL,
    QUIET,
    some,
)
from tests.client.adapters.vendor import Events, Vendor
from tests.serving import MODEL

pytestmark = QUIET


class TestMetered:
    async def test_openai(self, gpt: dict[str, Any], vendor: Vendor, account: Account) -> None:
        vendor.answers(wire.chat("chatcmpl-1", wire.chat_usage(1_000, 500, cached=600)))
        async with metered(account.billing()) as llm:
            answer = await llm.acompletion(**gpt)
        assert answer.choices[0].message.content == "Forty-two."
        figures = UsageFigures(input_tokens=400, output_tokens=500, cache_read_tokens=600)
        assert await account.bills() == [(MODEL, figures)]

    async def test_anthropic(
        self, claude: dict[str, Any], vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.message("msg_1", wire.message_usage(read=300, written=200)))
        async with metered(account.billing()) as llm:
            await llm.acompletion(**claude)
        assert await account.bills() == [(CLAUDE, CACHED)]

    async def test_embeddings(self, vendor: Vendor, account: Account) -> None:
        vendor.answers(wire.embedding())
        async with metered(account.billing()) as llm:
            await llm.aembedding(
                "text-embedding-3-small", input="a", api_base=f"{vendor.url}/v1", api_key="sk-none"
            )
        embedded = ("openai/text-embedding-3-small", UsageFigures(input_tokens=1_000))
        assert await account.bills() == [embedded]

    async def test_streams(
        self,
        gpt: dict[str, Any],
        claude: dict[str, Any],
        vendor: Vendor,
        account: Account,
    ) -> None:
        vendor.answers(Events(wire.chat_frames("chatcmpl-1")))
        vendor.answers(Events(wire.message_frames("msg_1", 300, 200)))
        async with metered(account.billing()) as llm:
            for arguments in (gpt, claude):
                stream = await llm.acompletion(**arguments, stream=True)
                chunks = [chunk async for chunk in stream]
                said = [chunk.choices[0].delta.content or "" for chunk in chunks]
                assert "".join(said) == "Forty-two."
                assert not any(getattr(chunk, "usage", None) for chunk in chunks)
        assert await account.bills() == [(MODEL, FULL), (CLAUDE, CACHED)]

    async def test_the_usage_is_shown_to_whom_asks_for_it(
        self, gpt: dict[str, Any], vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(Events(wire.chat_frames("chatcmpl-1")))
        async with metered(account.billing()) as llm:
            stream = await llm.acompletion(
                **gpt, stream=True, stream_options={"include_usage": True}
            )
            *_, last = [chunk async for chunk in stream]
        assert last.usage.prompt_tokens == 1_000
        assert await account.bills() == [(MODEL, FULL)]

    async def test_what_is_tried_again_is_billed_once(
        self, gpt: dict[str, Any], vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.failure(500), wire.failure(429), wire.chat("chatcmpl-1"))
        async with metered(account.billing()) as llm:
            await llm.acompletion(**gpt, num_retries=2)
        assert await account.bills() == [(MODEL, FULL)]

    async def test_what_fails_costs_nothing(
        self, gpt: dict[str, Any], vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.failure(400))
        async with metered(account.billing()) as llm:
            with pytest.raises(litellm.exceptions.BadRequestError):
                await llm.acompletion(**gpt, max_retries=0)
        assert await account.bills() == []

    async def test_broken_off_by_its_reader(
        self, gpt: dict[str, Any], vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.hanging(wire.chat_frames("chatcmpl-1")[:3]))
        async with metered(account.billing(), on_unknown_usage=some) as llm:
            stream = await llm.acompletion(**gpt, stream=True)
            for _ in range(3):
                await anext(stream)
            await stream.aclose()
            figures = UsageFigures(input_tokens=7, output_tokens=5)
            assert await account.bills() == [(MODEL, figures)]

    async def test_broken_off_by_the_network(
        self, gpt: dict[str, Any], vendor: Vendor, account: Account
    ) -> None:
        vendor.answers(wire.cut(wire.chat_frames("chatcmpl-1")[:3]))
        async with metered(account.billing(), on_unknown_usage=some) as llm:
            stream = await llm.acompletion(**gpt, stream=True)
            with pytest.raises(litellm.exceptions.MidStreamFallbackError):
                [chunk async for chunk in stream]
        figures = UsageFigures(input_tokens=7, output_tokens=5)
        assert await account.bills() == [(MODEL, figures)]
