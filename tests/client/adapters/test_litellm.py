"""LiteLLM itself against a vendor on this machine, billed by a real server."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import litellm
import pytest
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from zaaz_client.adapters import UnknownUsage, UsageFigures
from zaaz_client.adapters.litellm import UsageLogger, metered

from tests.client.adapters import wire
from tests.client.adapters.conftest import Account
from tests.client.adapters.vendor import Events, Vendor
from tests.ledger.calls import soon
from tests.serving import MODEL

UNTYPED: Any = litellm
CLAUDE = "anthropic/claude-sonnet-5-5"
MESSAGES = [{"role": "user", "content": "What is it?"}]
FULL = UsageFigures(input_tokens=1_000, output_tokens=500)
CACHED = UsageFigures(
    input_tokens=1_000, output_tokens=500, cache_read_tokens=300, cache_write_tokens=200
)


pytestmark = [
    pytest.mark.filterwarnings("ignore:Item .* using the `ReadOnly` qualifier"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute on the instance"),
]
"""Pydantic's, of what LiteLLM does."""


@pytest.fixture(scope="module", autouse=True)
async def quiet() -> AsyncIterator[None]:
    """LiteLLM keeps its connections, and the task that tells its callbacks, until it is told."""
    litellm.suppress_debug_info = True
    yield
    await GLOBAL_LOGGING_WORKER.stop()
    await UNTYPED.close_litellm_async_clients()
    UNTYPED.in_memory_llm_clients_cache.flush_cache()


@pytest.fixture
def gpt(vendor: Vendor) -> dict[str, Any]:
    return {
        "model": "gpt-4o-mini",
        "messages": MESSAGES,
        "api_base": f"{vendor.url}/v1",
        "api_key": "sk-none",
    }


@pytest.fixture
def claude(vendor: Vendor) -> dict[str, Any]:
    return {"model": CLAUDE, "messages": MESSAGES, "api_base": vendor.url, "api_key": "sk-none"}


def some(unknown: UnknownUsage) -> UsageFigures:
    return UsageFigures(input_tokens=7, output_tokens=len(unknown.text))


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


class TestUsageLogger:
    @pytest.fixture
    def log(self, account: Account) -> Iterator[UsageLogger]:
        logger = UsageLogger(account.stream)
        litellm.callbacks.append(logger)
        yield logger
        UNTYPED.logging_callback_manager._reset_all_callbacks()  # it copies them into lists

    async def told(self) -> None:
        """LiteLLM has told its callbacks everything."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        pending = {task for task in others if "dispatch" in str(task.get_coro())}
        await soon(asyncio.gather(*pending))
        await soon(GLOBAL_LOGGING_WORKER.flush())

    async def test_a_completion(
        self, gpt: dict[str, Any], vendor: Vendor, account: Account, log: UsageLogger
    ) -> None:
        vendor.answers(wire.failure(500), wire.chat("chatcmpl-1"))
        await litellm.acompletion(**gpt, num_retries=1, metadata={"zaaz_user_id": account.user_id})
        await self.told()
        assert await account.bills() == [(MODEL, FULL)]

    async def test_streams(
        self,
        gpt: dict[str, Any],
        claude: dict[str, Any],
        vendor: Vendor,
        account: Account,
        log: UsageLogger,
    ) -> None:
        vendor.answers(Events(wire.chat_frames("chatcmpl-1")))
        vendor.answers(Events(wire.message_frames("msg_1", 300, 200)))
        for arguments in (gpt, claude):
            stream = await litellm.acompletion(
                **arguments,
                stream=True,
                stream_options={"include_usage": True},
                user=account.user_id,
            )
            [chunk async for chunk in stream]
            await self.told()
        assert await account.bills() == [(MODEL, FULL), (CLAUDE, CACHED)]

    async def test_what_came_of_a_stream_that_broke_is_billed_as_litellm_counts_it(
        self, gpt: dict[str, Any], vendor: Vendor, account: Account, log: UsageLogger
    ) -> None:
        vendor.answers(wire.cut(wire.chat_frames("chatcmpl-1")[:3]))
        stream = await litellm.acompletion(**gpt, stream=True, user=account.user_id)
        with pytest.raises(litellm.exceptions.MidStreamFallbackError):
            [chunk async for chunk in stream]
        await self.told()
        ((model, figures),) = await account.bills()
        assert (model, figures.output_tokens) == (MODEL, 2)
        assert figures.input_tokens > 0

    async def test_what_fails_costs_nothing(
        self, gpt: dict[str, Any], vendor: Vendor, account: Account, log: UsageLogger
    ) -> None:
        vendor.answers(wire.failure(400))
        with pytest.raises(litellm.exceptions.BadRequestError):
            await litellm.acompletion(**gpt, max_retries=0, user=account.user_id)
        await self.told()
        assert await account.bills() == []

    async def test_a_call_that_names_no_user_is_logged(
        self,
        gpt: dict[str, Any],
        vendor: Vendor,
        account: Account,
        log: UsageLogger,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        vendor.answers(wire.chat("chatcmpl-1"))
        with caplog.at_level(logging.ERROR, "zaaz_client"):
            await litellm.acompletion(**gpt)
            await self.told()
        assert await account.bills() == []
        assert "names no user" in caplog.text
