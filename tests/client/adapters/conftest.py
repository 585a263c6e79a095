import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from zaaz.credits.v1.credits_service_pb2 import ListCreditsUsagesRequest
from zaaz_client import UsageStream, ZaazClient
from zaaz_client.adapters import StreamBilling, UsageFigures
from zaaz_client.blocking import BlockingUsageStream, BlockingZaazClient

from tests.client.adapters.vendor import Vendor, selling
from tests.ledger.calls import soon
from tests.serving import Served, new_key

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the network for it when imported

FUNDS = 100_000_000
A_DAY_SECONDS = 86_400
MAX_CLIENTS = 10_000


@dataclass(frozen=True)
class Account:
    """A user with funds, and a usage stream to bill by."""

    served: Served
    user_id: str
    stream: UsageStream

    def billing(self, **options: Any) -> StreamBilling:
        return StreamBilling(self.stream, self.user_id, **options)

    async def bills(self) -> list[tuple[str, UsageFigures]]:
        """What was billed: models and figures. The wallet has paid for that and nothing else."""
        await soon(self.stream.flush())
        return await bills(self.served, self.user_id)


@dataclass(frozen=True)
class BlockingAccount:
    """The same for synchronous code."""

    served: Served
    user_id: str
    client: BlockingZaazClient
    stream: BlockingUsageStream

    async def bills(self) -> list[tuple[str, UsageFigures]]:
        await soon(asyncio.to_thread(self.stream.flush))
        return await bills(self.served, self.user_id)


async def bills(served: Served, user_id: str) -> list[tuple[str, UsageFigures]]:
    request = ListCreditsUsagesRequest(user_id=user_id, page_size=100)
    usages = (await served.credits.ListCreditsUsages(request)).credits_usages
    spent = FUNDS - (await served.wallet(user_id)).credits_micros
    assert spent == sum(usage.credits_micros for usage in usages)
    await served.assert_sound(user_id)
    return [
        (
            usage.ai_model,
            UsageFigures(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cache_read_tokens=usage.cache_read_tokens,
                cache_write_tokens=usage.cache_write_tokens,
            ),
        )
        for usage in reversed(usages)
    ]


@pytest.fixture(scope="session")
async def one_vendor() -> AsyncIterator[Vendor]:
    async with selling() as vendor:
        yield vendor


@pytest.fixture
def vendor(one_vendor: Vendor) -> Vendor:
    one_vendor.script.clear()
    one_vendor.asked.clear()
    one_vendor.left = 0
    return one_vendor


@pytest.fixture
async def account(served: Served, partner: ZaazClient) -> AsyncIterator[Account]:
    user_id = await served.new_wallet(FUNDS)
    async with partner.usage_stream(f"adapters-{new_key()}") as stream:
        yield Account(served, user_id, stream)
        assert not stream.rejected_events


@pytest.fixture
async def blocking_account(served: Served) -> AsyncIterator[BlockingAccount]:
    """Its client waits for the server, which is in this loop: what it does is done in threads."""
    user_id = await served.new_wallet(FUNDS)
    with ExitStack() as stack:

        def begin() -> BlockingAccount:
            client = stack.enter_context(BlockingZaazClient(served.target, served.api_key))
            stream = stack.enter_context(client.usage_stream(f"adapters-{new_key()}"))
            return BlockingAccount(served, user_id, client, stream)

        account = await soon(asyncio.to_thread(begin))
        try:
            yield account
        finally:
            await soon(asyncio.to_thread(stack.close))
    assert not account.stream.rejected_events


@pytest.fixture
async def user_id(served: Served) -> str:
    return await served.new_wallet(FUNDS)


@pytest.fixture(scope="session")
async def quiet() -> AsyncIterator[None]:
    """LiteLLM keeps its connections, and the task that tells its callbacks, until it is told."""
    import litellm
    import openai
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
    from litellm.llms.custom_httpx.http_handler import HTTPHandler

    untyped: Any = litellm
    litellm.suppress_debug_info = True
    # Clients that it evicts, after ten minutes or when there are 200, are closed by nobody in time:
    # their sockets would be told of in whatever test comes later. So all stay until the end.
    clients = untyped.in_memory_llm_clients_cache
    clients.default_ttl, clients.max_size_in_memory = A_DAY_SECONDS, MAX_CLIENTS
    yield
    await GLOBAL_LOGGING_WORKER.stop()
    await untyped.close_litellm_async_clients()
    for client in clients.cache_dict.values():
        if isinstance(client, openai.OpenAI | HTTPHandler):
            client.close()
    clients.flush_cache()


MESSAGES = [{"role": "user", "content": "What is it?"}]


@pytest.fixture
def gpt(vendor: Vendor) -> dict[str, Any]:
    """A call of LiteLLM's."""
    url = f"{vendor.url}/v1"
    return {"model": "gpt-4o-mini", "messages": MESSAGES, "api_base": url, "api_key": "sk-none"}


@pytest.fixture
def claude(vendor: Vendor) -> dict[str, Any]:
    model = "anthropic/claude-sonnet-5-5"
    return {"model": model, "messages": MESSAGES, "api_base": vendor.url, "api_key": "sk-none"}
