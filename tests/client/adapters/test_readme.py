"""What the SDK's README shows of language models, against a vendor on this machine."""

import asyncio
from collections.abc import AsyncIterator

import litellm
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI, OpenAI
from zaaz_client import ZaazClient
from zaaz_client.adapters import UsageFigures

from tests.client.adapters import wire
from tests.client.adapters.conftest import Account, BlockingAccount, bills
from tests.client.adapters.vendor import Events, Vendor
from tests.client.test_readme_runs import example
from tests.ledger.calls import soon
from tests.serving import MODEL, Served

FULL = UsageFigures(input_tokens=1_000, output_tokens=500)
CLAUDE = "anthropic/claude-sonnet-5-5"


async def said(answer: AsyncIterator[str]) -> str:
    return "".join([text async for text in answer])


async def test_openai(vendor: Vendor, account: Account) -> None:
    chat = example("chat")["chat"]
    vendor.answers(wire.chat("chatcmpl-1"))
    async with AsyncOpenAI(base_url=f"{vendor.url}/v1", api_key="sk-none") as openai:
        answer = await chat(openai, account.stream, account.user_id, "What is it?")
    assert answer == "Forty-two."
    assert await account.bills() == [(MODEL, FULL)]


async def test_anthropic(vendor: Vendor, served: Served, partner: ZaazClient, user_id: str) -> None:
    write = example("write")["write"]
    vendor.answers(Events(wire.message_frames("msg_1")))
    vendor.answers(wire.cut(wire.message_frames("msg_2")[:5]))
    async with AsyncAnthropic(base_url=vendor.url, api_key="sk-none") as anthropic:
        assert await said(write(partner, anthropic, user_id, "numbers")) == "Forty-two."
        with pytest.raises(Exception, match="peer closed"):
            await said(write(partner, anthropic, user_id, "numbers"))
    broken = UsageFigures(input_tokens=1_000, output_tokens=len("Forty") // 4 + 1)
    assert await bills(served, user_id) == [(CLAUDE, FULL), (CLAUDE, broken)]


async def test_synchronous_code(vendor: Vendor, blocking_account: BlockingAccount) -> None:
    tell = example("tell")["tell"]

    def work() -> None:
        with OpenAI(base_url=f"{vendor.url}/v1", api_key="sk-none") as openai:
            account = blocking_account
            told = tell(account.client, openai, account.user_id, "What is it?")
            assert told == "Forty-two."

    vendor.answers(Events(wire.chat_frames("chatcmpl-1")))
    await soon(asyncio.to_thread(work))
    assert await blocking_account.bills() == [(MODEL, FULL)]


@pytest.mark.usefixtures("quiet")
@pytest.mark.filterwarnings("ignore:Item .* using the `ReadOnly` qualifier")
@pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute on the instance")
async def test_litellm(vendor: Vendor, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm, "api_base", f"{vendor.url}/v1")
    monkeypatch.setattr(litellm, "api_key", "sk-none")
    ask = example("ask")["ask"]
    vendor.answers(Events(wire.chat_frames("chatcmpl-1")))
    assert await said(ask(account.stream, account.user_id, "gpt-4o-mini", "What?")) == "Forty-two."
    assert await account.bills() == [(MODEL, FULL)]
