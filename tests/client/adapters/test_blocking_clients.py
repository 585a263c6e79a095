"""Synchronous clients of OpenAI and Anthropic, and LiteLLM's functions: what is not a stream's end.

All of it is done in threads, as the vendor and the server are in this loop.
"""

import asyncio
import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import httpx
import openai
import pytest
from zaaz_client import StreamClosed, ZaazClient, adapters
from zaaz_client.adapters import FinishedCall, UsageFigures
from zaaz_client.adapters import anthropic as for_anthropic
from zaaz_client.adapters import openai as for_openai
from zaaz_client.adapters.blocking import Billing, ProcessBilling, StreamBilling
from zaaz_client.adapters.blocking import anthropic as blocking_anthropic
from zaaz_client.adapters.blocking import litellm as blocking_litellm
from zaaz_client.adapters.blocking.metering import Meter
from zaaz_client.adapters.blocking.openai import metered
from zaaz_client.adapters.litellm import metered as litellm_metered
from zaaz_client.adapters.readers import Reader

from tests.client.adapters import wire
from tests.client.adapters.conftest import Account, BlockingAccount
from tests.client.adapters.kinds import ANTHROPIC, BROKEN, INPUT, PROMPT, estimate
from tests.client.adapters.litellm_calls import CACHED, CLAUDE, QUIET
from tests.client.adapters.openai_calls import ASKED, FULL
from tests.client.adapters.vendor import Events, Vendor
from tests.client.processes import process
from tests.ledger.calls import soon
from tests.serving import MODEL


@pytest.fixture
def client(vendor: Vendor) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{vendor.url}/v1", api_key="sk-none") as client:
        yield client


@pytest.fixture
def claude_client(vendor: Vendor) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=vendor.url, api_key="sk-none") as client:
        yield client


@pytest.fixture
def billing(blocking_account: BlockingAccount) -> StreamBilling:
    return StreamBilling(blocking_account.stream, blocking_account.user_id)


async def in_a_thread(work: Callable[[], None]) -> None:
    await soon(asyncio.to_thread(work))


class TestOpenAI:
    async def test_every_call_that_is_billed(
        self,
        client: openai.OpenAI,
        billing: StreamBilling,
        vendor: Vendor,
        blocking_account: BlockingAccount,
    ) -> None:
        def work() -> None:
            with metered(client, billing) as llm:
                assert type(llm) is openai.OpenAI
                llm.chat.completions.create(**ASKED)
                llm.responses.create(model="gpt-4o-mini", input="What?")
                llm.beta.responses.create(model="gpt-4o-mini", input="What?")
                raw = llm.chat.completions.with_raw_response.create(**ASKED)
                assert raw.parse().id == "chatcmpl-2"
                llm.with_options(timeout=9).copy().chat.completions.create(**ASKED)
                llm.embeddings.create(model="text-embedding-3-small", input="What?")
                client.chat.completions.create(**ASKED)  # which is not metered

        vendor.answers(wire.chat("chatcmpl-1"), wire.response("resp_1"), wire.response("resp_2"))
        vendor.answers(wire.chat("chatcmpl-2"), wire.chat("chatcmpl-3"), wire.embedding())
        vendor.answers(wire.chat("chatcmpl-4"))
        await in_a_thread(work)
        embedded = ("openai/text-embedding-3-small", UsageFigures(input_tokens=1_000))
        assert await blocking_account.bills() == [(MODEL, FULL)] * 5 + [embedded]

    async def test_what_is_tried_again_is_billed_once_and_what_fails_is_not(
        self,
        client: openai.OpenAI,
        billing: StreamBilling,
        vendor: Vendor,
        blocking_account: BlockingAccount,
    ) -> None:
        def work() -> None:
            with metered(client, billing) as llm:
                llm.chat.completions.create(**ASKED)
                for stream in (False, True):
                    with pytest.raises(openai.BadRequestError):
                        llm.chat.completions.create(**ASKED, stream=stream)

        vendor.answers(wire.failure(500), wire.failure(429), wire.chat("chatcmpl-1"))
        vendor.answers(wire.failure(400), wire.failure(400))
        await in_a_thread(work)
        assert await blocking_account.bills() == [(MODEL, FULL)]

    async def test_streams_by_the_helpers(
        self,
        client: openai.OpenAI,
        billing: StreamBilling,
        vendor: Vendor,
        blocking_account: BlockingAccount,
    ) -> None:
        def work() -> None:
            with metered(client, billing) as llm:
                with llm.chat.completions.stream(**ASKED) as chat:
                    assert chat.get_final_completion().id == "chatcmpl-1"
                with llm.responses.stream(**INPUT) as response:
                    assert response.get_final_response().output_text == "Forty-two."
                raw = llm.chat.completions.with_raw_response.create(**ASKED, stream=True)
                chunks = list(raw.parse())
                assert all(chunk.choices for chunk in chunks)  # the usage was not asked for
                streamed = llm.completions.create(**PROMPT, stream=True)
                assert isinstance(streamed, openai.Stream)
                for piece in streamed:
                    if piece.choices[0].finish_reason:
                        break  # and the usage behind it is read all the same

        vendor.answers(Events(wire.chat_frames("chatcmpl-1")))
        vendor.answers(Events(wire.response_frames("resp_1")))
        vendor.answers(Events(wire.chat_frames("chatcmpl-2")))
        vendor.answers(Events(wire.completion_frames("cmpl-1")))
        await in_a_thread(work)
        assert vendor.asked[0].body["stream_options"] == {"include_usage": True}
        assert await blocking_account.bills() == [(MODEL, FULL)] * 4

    async def test_many_threads(
        self,
        client: openai.OpenAI,
        billing: StreamBilling,
        vendor: Vendor,
        blocking_account: BlockingAccount,
    ) -> None:
        def work() -> None:
            with metered(client, billing) as llm, ThreadPoolExecutor(8) as pool:

                def one(_: int) -> int:
                    return len(list(llm.chat.completions.create(**ASKED, stream=True)))

                assert list(pool.map(one, range(24))) == [6] * 24

        vendor.answers(*(Events(wire.chat_frames(f"chatcmpl-{number}")) for number in range(24)))
        await in_a_thread(work)
        assert await blocking_account.bills() == [(MODEL, FULL)] * 24

    async def test_what_was_dropped_is_billed_with_the_next_call(
        self,
        client: openai.OpenAI,
        billing: StreamBilling,
        vendor: Vendor,
        blocking_account: BlockingAccount,
    ) -> None:
        sent: list[int] = []

        def drop(llm: openai.OpenAI) -> None:
            stream = llm.chat.completions.create(**ASKED, stream=True)
            for _ in range(3):
                next(stream)

        def work() -> None:
            with metered(client, billing, on_unknown_usage=estimate) as llm:
                drop(llm)
                llm.chat.completions.create(**ASKED)
                sent.append(blocking_account.stream.next_offset)

        vendor.answers(wire.hanging(wire.chat_frames("chatcmpl-1")[:3]), wire.chat("chatcmpl-2"))
        await in_a_thread(work)
        assert sent == [2]
        broken = UsageFigures(input_tokens=7, output_tokens=len("Forty"))
        assert await blocking_account.bills() == [(MODEL, broken), (MODEL, FULL)]

    async def test_no_garbage_collector_closes_what_was_dropped(
        self,
        client: openai.OpenAI,
        billing: StreamBilling,
        vendor: Vendor,
        blocking_account: BlockingAccount,
    ) -> None:
        closed: list[bool] = []

        def drop(llm: openai.OpenAI) -> httpx.Response:
            stream = llm.chat.completions.create(**ASKED, stream=True)
            next(stream)
            response: httpx.Response = stream.response
            return response

        def work() -> None:
            with metered(client, billing, on_unknown_usage=estimate) as llm:
                response = drop(llm)
                gc.collect()
                closed.append(response.is_closed)
                llm.chat.completions.create(**ASKED)
                closed.append(response.is_closed)
                response = drop(llm)
            closed.append(response.is_closed)

        first, third = (wire.hanging(wire.chat_frames(f"chatcmpl-{n}")[:3]) for n in (1, 3))
        vendor.answers(first, wire.chat("chatcmpl-2"), third)
        await in_a_thread(work)
        assert closed == [False, True, True]
        assert len(await blocking_account.bills()) == 3

    async def test_bytes_and_calls_after_the_block_are_refused(
        self, client: openai.OpenAI, billing: StreamBilling, vendor: Vendor
    ) -> None:
        with metered(client, billing) as llm:
            asking = llm.chat.completions.with_streaming_response.create(**ASKED)
            with pytest.raises(TypeError, match="with_streaming_response"), asking:
                pass
        with pytest.raises(RuntimeError, match="block has ended"):
            llm.chat.completions.create(**ASKED)
        assert vendor.asked == []


class TestAnthropic:
    async def test_messages(
        self,
        claude_client: anthropic.Anthropic,
        billing: StreamBilling,
        vendor: Vendor,
        blocking_account: BlockingAccount,
    ) -> None:
        def work() -> None:
            with blocking_anthropic.metered(claude_client, billing) as llm:
                assert type(llm) is anthropic.Anthropic
                llm.messages.create(**ANTHROPIC)
                llm.beta.messages.create(**ANTHROPIC)
                raw = llm.messages.with_raw_response.create(**ANTHROPIC)
                assert raw.parse().id == "msg_3"
                with llm.messages.stream(**ANTHROPIC) as stream:
                    assert list(stream.text_stream) == list(wire.SAID)

        usage = wire.message_usage(read=300, written=200)
        vendor.answers(wire.overloaded(), *(wire.message(f"msg_{n}", usage) for n in (1, 2, 3)))
        vendor.answers(Events(wire.message_frames("msg_4", 300, 200)))
        await in_a_thread(work)
        assert await blocking_account.bills() == [(CLAUDE, CACHED)] * 4

    async def test_a_helper_that_is_left(
        self,
        claude_client: anthropic.Anthropic,
        billing: StreamBilling,
        vendor: Vendor,
        blocking_account: BlockingAccount,
    ) -> None:
        sent: list[int] = []

        def work() -> None:
            metering = blocking_anthropic.metered(claude_client, billing, on_unknown_usage=estimate)
            with metering as llm:
                with llm.messages.stream(**ANTHROPIC) as stream:
                    for text in stream.text_stream:
                        if text == "ty":
                            break
                sent.append(blocking_account.stream.next_offset)

        vendor.answers(wire.hanging(wire.message_frames("msg_1")[:5]))
        await in_a_thread(work)
        assert sent == [1]
        broken = UsageFigures(input_tokens=1_000, output_tokens=len("Forty"))
        assert await blocking_account.bills() == [(CLAUDE, broken)]


class TestLiteLLM:
    pytestmark = QUIET

    async def test_completions_and_embeddings(
        self,
        gpt: dict[str, Any],
        claude: dict[str, Any],
        billing: StreamBilling,
        vendor: Vendor,
        blocking_account: BlockingAccount,
    ) -> None:
        def work() -> None:
            with blocking_litellm.metered(billing) as llm:
                answer = llm.completion(**gpt, num_retries=1)
                assert answer.choices[0].message.content == "Forty-two."
                llm.completion(**claude)
                keys = {name: gpt[name] for name in ("api_base", "api_key")}
                llm.embedding("text-embedding-3-small", input="a", **keys)
                with pytest.raises(openai.BadRequestError):
                    llm.completion(**gpt)

        vendor.answers(wire.failure(500), wire.chat("chatcmpl-1"))
        vendor.answers(wire.message("msg_1", wire.message_usage(read=300, written=200)))
        vendor.answers(wire.embedding(), wire.failure(400))
        await in_a_thread(work)
        embedded = ("openai/text-embedding-3-small", UsageFigures(input_tokens=1_000))
        assert await blocking_account.bills() == [(MODEL, FULL), (CLAUDE, CACHED), embedded]


class Refusing(Billing):
    """As over a stream that has ended for good."""

    def settle(self, call: object, finished: FinishedCall) -> None:
        raise StreamClosed("no more")


class TestNotBilled:
    """It is raised where nothing else is, and logged wherever it happens."""

    @pytest.mark.parametrize("stream", [False, True])
    async def test_of_a_call_that_ended(
        self,
        client: openai.OpenAI,
        vendor: Vendor,
        stream: bool,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        chunks: list[Any] = []

        def work() -> None:
            with metered(client, Refusing()) as llm:
                chunks.extend(llm.chat.completions.create(**ASKED, stream=stream))

        vendor.answers(
            Events(wire.chat_frames("chatcmpl-1")) if stream else wire.chat("chatcmpl-1")
        )
        with pytest.raises(StreamClosed, match="no more"):
            await in_a_thread(work)
        assert "not billed: FinishedCall" in caplog.text

    async def test_of_a_call_that_broke_off(
        self, client: openai.OpenAI, vendor: Vendor, caplog: pytest.LogCaptureFixture
    ) -> None:
        def work() -> None:
            with metered(client, Refusing(), on_unknown_usage=estimate) as llm:
                list(llm.chat.completions.create(**ASKED, stream=True))

        vendor.answers(wire.cut(wire.chat_frames("chatcmpl-1")[:3]))
        with pytest.raises(Exception, match=BROKEN) as raised:
            await in_a_thread(work)
        assert "no more" in "".join(raised.value.__notes__)
        assert "not billed: FinishedCall" in caplog.text


class Interrupted(Billing):
    """Ctrl-C comes while the first call is billed."""

    def __init__(self) -> None:
        self.settled = 0

    def settle(self, call: object, finished: FinishedCall) -> None:
        self.settled += 1
        if self.settled == 1:
            raise KeyboardInterrupt


class Spoken(Reader):
    def answer(self, answer: Any) -> None:
        self.event(answer)

    def event(self, event: Any) -> None:
        self.began = True
        self._say(event)


def test_an_interruption_keeps_no_other_call_from_being_billed_or_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    billing, closed = Interrupted(), []
    meter = Meter("v", billing, str, lambda unknown: unknown.known)
    streams = []  # of which none is dropped
    for number in range(3):
        call = meter.begin(Spoken(), {"model": "m"})
        streams.append(call.events(["yes", "no"], lambda number=number: closed.append(number)))  # type: ignore[misc]
        next(streams[-1])
    with pytest.raises(KeyboardInterrupt):
        meter.end()
    assert billing.settled == 3
    assert sorted(closed) == [0, 1, 2]
    assert "not billed" in caplog.text


class TestTheOtherKind:
    """A TypeError says what is for it."""

    async def test_of_client(
        self, client: openai.OpenAI, claude_client: anthropic.Anthropic, account: Account
    ) -> None:
        for_loops: Any = [
            (for_openai.metered, client, r"adapters\.blocking\.openai\.metered"),
            (for_anthropic.metered, claude_client, r"adapters\.blocking\.anthropic\.metered"),
        ]
        for meter, given, instead in for_loops:
            with pytest.raises(TypeError, match=instead):
                async with meter(given, account.billing()):
                    pass
        given_loops: Any = [
            (metered, openai.AsyncOpenAI(api_key="sk-none"), r"adapters\.openai\.metered"),
            (
                blocking_anthropic.metered,
                anthropic.AsyncAnthropic(api_key="sk-none"),
                r"adapters\.anthropic\.metered",
            ),
        ]
        for meter, given, instead in given_loops:
            with pytest.raises(TypeError, match=instead), meter(given, Refusing()):
                pass
            await given.close()

    async def test_of_billing(
        self, client: openai.OpenAI, claude_client: anthropic.Anthropic, account: Account
    ) -> None:
        mine, other = Refusing(), account.billing()
        untyped: Any = other
        with pytest.raises(TypeError, match=r"adapters\.blocking"), metered(client, untyped):
            pass
        with (
            pytest.raises(TypeError, match=r"adapters\.blocking"),
            blocking_anthropic.metered(claude_client, untyped),
        ):
            pass
        with (
            pytest.raises(TypeError, match=r"adapters\.blocking"),
            blocking_litellm.metered(untyped),
        ):
            pass
        unfit: Any = mine
        for metering in (
            for_openai.metered(openai.AsyncOpenAI(api_key="sk-none"), unfit),
            for_anthropic.metered(anthropic.AsyncAnthropic(api_key="sk-none"), unfit),
            litellm_metered(unfit),
        ):
            with pytest.raises(TypeError, match=r"zaaz_client\.adapters"):
                async with metering:
                    pass

    async def test_of_stream_and_process(
        self, account: Account, blocking_account: BlockingAccount, partner: ZaazClient
    ) -> None:
        stream: Any = account.stream
        with pytest.raises(TypeError, match=r"use zaaz_client\.adapters\.StreamBilling"):
            StreamBilling(stream, account.user_id)
        stream = blocking_account.stream
        with pytest.raises(TypeError, match=r"use zaaz_client\.adapters\.blocking\.StreamBilling"):
            adapters.StreamBilling(stream, account.user_id)
        use: Any = process(partner, account.user_id)
        with pytest.raises(TypeError, match=r"use zaaz_client\.adapters\.ProcessBilling"):
            ProcessBilling(use)
        use = await asyncio.to_thread(blocking_account.client.credit_process, account.user_id)
        with pytest.raises(TypeError, match=r"use zaaz_client\.adapters\.blocking\.ProcessBill"):
            adapters.ProcessBilling(use)
