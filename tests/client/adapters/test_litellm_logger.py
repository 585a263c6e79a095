"""The callback for LiteLLM: what it tells of asynchronous calls and of synchronous ones."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import litellm
import pytest
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from litellm.litellm_core_utils.thread_pool_executor import executor
from zaaz_client import StreamClosed
from zaaz_client.adapters import FinishedCall
from zaaz_client.adapters.any_thread import AnyThreadSender
from zaaz_client.adapters.litellm import UsageLogger

from tests.client.adapters import wire
from tests.client.adapters.conftest import Account, BlockingAccount
from tests.client.adapters.litellm_calls import CACHED, CLAUDE, FULL, QUIET, UNTYPED
from tests.client.adapters.vendor import Events, Vendor
from tests.ledger.calls import soon
from tests.serving import MODEL

pytestmark = QUIET


@contextmanager
def registered(logger: UsageLogger) -> Iterator[UsageLogger]:
    litellm.callbacks.append(logger)
    try:
        yield logger
    finally:
        UNTYPED.logging_callback_manager._reset_all_callbacks()  # it copies them into lists


async def told(log: UsageLogger) -> None:
    """LiteLLM has told its callbacks everything, and all of it is in the stream."""

    def busy() -> bool:
        names = [thread.name for thread in threading.enumerate()]
        slots: Any = executor
        waiting = slots._pending_slots._value < slots._max_pending_tasks
        return waiting or any("failure_handler" in name for name in names)

    async def look() -> None:
        while busy() or log.handed_over:  # noqa: ASYNC110 - its threads are looked at
            await asyncio.sleep(0.01)

    others = asyncio.all_tasks() - {asyncio.current_task()}
    pending = {task for task in others if "dispatch" in str(task.get_coro())}
    await soon(asyncio.gather(*pending))
    await soon(GLOBAL_LOGGING_WORKER.flush())
    await soon(look())


class TestAsynchronous:
    @pytest.fixture
    async def log(self, account: Account) -> AsyncIterator[UsageLogger]:
        with registered(UsageLogger(account.stream)) as logger:
            yield logger

    async def test_a_completion(
        self, gpt: dict[str, Any], vendor: Vendor, account: Account, log: UsageLogger
    ) -> None:
        vendor.answers(wire.failure(500), wire.chat("chatcmpl-1"))
        await litellm.acompletion(**gpt, num_retries=1, metadata={"zaaz_user_id": account.user_id})
        await told(log)
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
            await told(log)
        assert await account.bills() == [(MODEL, FULL), (CLAUDE, CACHED)]

    async def test_what_came_of_a_stream_that_broke_is_billed_as_litellm_counts_it(
        self, gpt: dict[str, Any], vendor: Vendor, account: Account, log: UsageLogger
    ) -> None:
        vendor.answers(wire.cut(wire.chat_frames("chatcmpl-1")[:3]))
        stream = await litellm.acompletion(**gpt, stream=True, user=account.user_id)
        with pytest.raises(litellm.exceptions.MidStreamFallbackError):
            [chunk async for chunk in stream]
        await told(log)
        ((model, figures),) = await account.bills()
        assert (model, figures.output_tokens) == (MODEL, 2)
        assert figures.input_tokens > 0

    async def test_what_fails_costs_nothing(
        self, gpt: dict[str, Any], vendor: Vendor, account: Account, log: UsageLogger
    ) -> None:
        vendor.answers(wire.failure(400))
        with pytest.raises(litellm.exceptions.BadRequestError):
            await litellm.acompletion(**gpt, max_retries=0, user=account.user_id)
        await told(log)
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
            await told(log)
        assert await account.bills() == []
        assert "names no user" in caplog.text

    async def test_a_stream_that_both_ways_are_told_of_is_billed_once(
        self, gpt: dict[str, Any], vendor: Vendor, account: Account, log: UsageLogger
    ) -> None:
        """A synchronous one that is read by a loop, with a function among the callbacks."""

        def listen(*_: Any) -> None:
            """LiteLLM calls the synchronous way for its sake."""

        def begin() -> Any:
            return litellm.completion(**gpt, stream=True, user=account.user_id)

        UNTYPED.success_callback.append(listen)
        vendor.answers(Events(wire.chat_frames("chatcmpl-1")))
        [chunk async for chunk in await asyncio.to_thread(begin)]
        await told(log)
        assert len(await account.bills()) == account.stream.counters.sent == 1


@pytest.fixture(params=["of a loop", "blocking"])
def paying(request: pytest.FixtureRequest) -> Account | BlockingAccount:
    name = "account" if request.param == "of a loop" else "blocking_account"
    found: Account | BlockingAccount = request.getfixturevalue(name)
    return found


class TestSynchronous:
    """In a thread, as the vendor and the server are in this loop."""

    @pytest.fixture
    async def log(self, paying: Account | BlockingAccount) -> AsyncIterator[UsageLogger]:
        with registered(UsageLogger(paying.stream)) as logger:
            yield logger

    async def told(self, log: UsageLogger, call: Callable[..., Any], **asked: Any) -> None:
        """What it asks is answered and read to its end, and LiteLLM has told of it."""

        def work() -> None:
            answer = call(**asked)
            if asked.get("stream"):
                list(answer)

        try:
            await soon(asyncio.to_thread(work))
        finally:
            await told(log)

    async def test_a_completion(
        self,
        gpt: dict[str, Any],
        vendor: Vendor,
        paying: Account | BlockingAccount,
        log: UsageLogger,
    ) -> None:
        vendor.answers(wire.failure(500), wire.chat("chatcmpl-1"))
        metadata = {"zaaz_user_id": paying.user_id}
        await self.told(log, litellm.completion, **gpt, num_retries=1, metadata=metadata)
        assert await paying.bills() == [(MODEL, FULL)]

    async def test_streams(
        self,
        gpt: dict[str, Any],
        claude: dict[str, Any],
        vendor: Vendor,
        paying: Account | BlockingAccount,
        log: UsageLogger,
    ) -> None:
        vendor.answers(Events(wire.chat_frames("chatcmpl-1")))
        vendor.answers(Events(wire.message_frames("msg_1", 300, 200)))
        asked = {"stream": True, "stream_options": {"include_usage": True}, "user": paying.user_id}
        for arguments in (gpt, claude):
            await self.told(log, litellm.completion, **arguments, **asked)
        assert await paying.bills() == [(MODEL, FULL), (CLAUDE, CACHED)]

    async def test_what_came_of_a_stream_that_broke_is_billed_as_litellm_counts_it(
        self,
        gpt: dict[str, Any],
        vendor: Vendor,
        paying: Account | BlockingAccount,
        log: UsageLogger,
    ) -> None:
        vendor.answers(wire.cut(wire.chat_frames("chatcmpl-1")[:3]))
        with pytest.raises(litellm.exceptions.MidStreamFallbackError):
            await self.told(log, litellm.completion, **gpt, stream=True, user=paying.user_id)
        ((model, figures),) = await paying.bills()
        assert (model, figures.output_tokens) == (MODEL, 2)
        assert figures.input_tokens > 0

    @pytest.mark.parametrize("stream", [False, True])
    async def test_what_fails_costs_nothing(
        self,
        gpt: dict[str, Any],
        vendor: Vendor,
        paying: Account | BlockingAccount,
        log: UsageLogger,
        stream: bool,
    ) -> None:
        vendor.answers(wire.failure(400))
        asked = {**gpt, "stream": stream, "user": paying.user_id, "max_retries": 0}
        with pytest.raises(litellm.exceptions.BadRequestError):
            await self.told(log, litellm.completion, **asked)
        assert await paying.bills() == []

    async def test_a_call_that_names_no_user_is_logged(
        self,
        gpt: dict[str, Any],
        vendor: Vendor,
        paying: Account | BlockingAccount,
        log: UsageLogger,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        vendor.answers(wire.chat("chatcmpl-1"))
        await self.told(log, litellm.completion, **gpt)
        assert await paying.bills() == []
        assert "names no user" in caplog.text

    async def test_a_call_that_is_told_after_the_streams_end_is_logged(
        self,
        gpt: dict[str, Any],
        vendor: Vendor,
        paying: Account | BlockingAccount,
        log: UsageLogger,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        if isinstance(paying, Account):
            await soon(paying.stream.close())
        else:
            await soon(asyncio.to_thread(paying.stream.close))
        vendor.answers(wire.chat("chatcmpl-1"))
        await self.told(log, litellm.completion, **gpt, user=paying.user_id)
        assert "not billed" in caplog.text
        assert StreamClosed.__name__ in caplog.text


class TestToldTwice:
    """By both ways that LiteLLM has, of which it may use both for one call."""

    @pytest.fixture
    async def log(self, account: Account) -> UsageLogger:
        return UsageLogger(account.stream, usage_key=self.other_key)

    def other_key(self, call: FinishedCall) -> str:
        """Another for each event: the server could not tell that it is the same call."""
        self.keys = getattr(self, "keys", 0) + 1
        return f"{call.response_id}-{self.keys}"

    def call(self, user_id: str, start_time: float = 0) -> dict[str, Any]:
        return {
            "model": "gpt-4o-mini",
            "custom_llm_provider": "openai",
            "litellm_call_id": "call-1",
            "start_time": start_time,
            "user": user_id,
        }

    def answer(self, said: int = 500) -> Any:
        return litellm.ModelResponse(usage=wire.chat_usage(1_000, said))

    async def test_it_is_billed_once(self, log: UsageLogger, account: Account) -> None:
        call, answer = self.call(account.user_id), self.answer()
        await log.async_log_success_event(call, answer, 0, 0)
        log.log_success_event(call, answer, 0, 0)
        await asyncio.to_thread(log.log_success_event, call, answer, 0, 0)
        await told(log)
        assert await account.bills() == [(MODEL, FULL)]

    async def test_other_figures_are_logged(
        self, log: UsageLogger, account: Account, caplog: pytest.LogCaptureFixture
    ) -> None:
        call = self.call(account.user_id)
        await log.async_log_success_event(call, self.answer(), 0, 0)
        log.log_success_event(call, self.answer(501), 0, 0)
        await told(log)
        assert await account.bills() == [(MODEL, FULL)]
        assert "was billed as" in caplog.text

    async def test_a_caller_may_give_an_id_again(self, log: UsageLogger, account: Account) -> None:
        for start_time in (1, 2):
            call = self.call(account.user_id, start_time)
            await log.async_log_success_event(call, self.answer(), 0, 0)
        assert await account.bills() == [(MODEL, FULL)] * 2


class TestAnyThread:
    async def test_more_than_may_wait_are_refused(
        self, account: Account, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("zaaz_client.adapters.any_thread.MAX_HANDED_OVER_EVENTS", 1)
        sender = AnyThreadSender(account.stream)
        event: Any = UsageLogger(account.stream)._form.event(
            account.user_id,
            FinishedCall(vendor="v", ai_model=MODEL, response_id="r", figures=FULL, complete=True),
        )
        sender.send_blocking(event)  # this loop has no time for it before the next
        with pytest.raises(RuntimeError, match="wait for the usage stream"):
            sender.send_blocking(event)

        async def look() -> None:
            while sender.handed_over:  # noqa: ASYNC110 - the sender is looked at
                await asyncio.sleep(0)

        await soon(look())
        sender.send_blocking(event)
        await soon(look())
        assert await account.bills() == [(MODEL, FULL)]

    def test_a_loop_that_has_ended(self) -> None:
        async def made() -> AnyThreadSender:
            stream: Any = None
            return AnyThreadSender(stream)

        sender = asyncio.run(made())
        event: Any = None
        with pytest.raises(RuntimeError, match="has ended"):
            sender.send_blocking(event)
