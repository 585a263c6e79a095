"""Every kind of stream that is metered, for loops and for synchronous code."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
from zaaz_client.adapters import UnknownUsage, UsageFigures
from zaaz_client.adapters import anthropic as for_anthropic
from zaaz_client.adapters import litellm as for_litellm
from zaaz_client.adapters import openai as for_openai
from zaaz_client.adapters.blocking import anthropic as blocking_anthropic
from zaaz_client.adapters.blocking import litellm as blocking_litellm
from zaaz_client.adapters.blocking import openai as blocking_openai

from tests.client.adapters import wire
from tests.client.adapters.litellm_calls import CLAUDE
from tests.client.adapters.openai_calls import ASKED
from tests.serving import MODEL

MESSAGES = ASKED["messages"]
PROMPT: Any = {"model": "gpt-4o-mini", "prompt": "What is it?"}
INPUT: Any = {"model": "gpt-4o-mini", "input": "What is it?"}
ANTHROPIC: Any = {"model": "claude-sonnet-5-5", "max_tokens": 500, "messages": MESSAGES}


def estimate(unknown: UnknownUsage) -> UsageFigures:
    """What is known of the input, or 7, and the characters that were said."""
    return UsageFigures(
        input_tokens=unknown.known.input_tokens or 7, output_tokens=len(unknown.text)
    )


@dataclass(frozen=True)
class Kind:
    """A kind of stream. `ask` begins one; of a client for loops it is awaited."""

    name: str
    ask: Callable[[Any, str], Any]
    """Of a client, and the vendor's URL."""
    frames: list[str]
    said: Callable[[Any], str | None]
    """What an event of it says."""
    client: Callable[[str], Any] | None = None
    """Makes the vendor's client for a URL: one for loops."""
    blocking_client: Callable[[str], Any] | None = None
    metered: Any = None
    blocking_metered: Any = None
    model: str = MODEL
    input_tokens: int = 7
    """Of a stream that broke, with `estimate`."""

    @property
    def begun(self) -> list[str]:
        """Until "ty" was said."""
        (last,) = [n for n, frame in enumerate(self.frames) if '"ty"' in frame]
        return self.frames[: last + 1]

    @property
    def broken(self) -> list[tuple[str, UsageFigures]]:
        """What is billed when it broke there, with `estimate`."""
        figures = UsageFigures(input_tokens=self.input_tokens, output_tokens=len("Forty"))
        return [(self.model, figures)]

    @property
    def full(self) -> list[tuple[str, UsageFigures]]:
        return [(self.model, UsageFigures(input_tokens=1_000, output_tokens=500))]

    def __str__(self) -> str:
        return self.name


def _openai(name: str, ask: Any, frames: list[str], said: Any) -> Kind:
    return Kind(
        name,
        ask,
        frames,
        said,
        client=lambda url: openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-none"),
        blocking_client=lambda url: openai.OpenAI(base_url=f"{url}/v1", api_key="sk-none"),
        metered=for_openai.metered,
        blocking_metered=blocking_openai.metered,
    )


def _litellm(name: str, frames: list[str], **more: Any) -> Kind:
    def ask(llm: Any, url: str) -> Any:
        base = url if name.endswith("anthropic") else f"{url}/v1"
        complete = getattr(llm, "completion", None) or llm.acompletion
        model = more.get("model", "gpt-4o-mini")
        return complete(model, MESSAGES, stream=True, api_base=base, api_key="sk-none")

    return Kind(
        name,
        ask,
        frames,
        _of_choice,
        metered=for_litellm.metered,
        blocking_metered=blocking_litellm.metered,
        **more,
    )


def _of_choice(chunk: Any) -> str | None:
    said: str | None = chunk.choices[0].delta.content
    return said


KINDS = [
    _openai(
        "chat",
        lambda llm, _: llm.chat.completions.create(**ASKED, stream=True),
        wire.chat_frames("chatcmpl-1"),
        _of_choice,
    ),
    _openai(
        "completions",
        lambda llm, _: llm.completions.create(**PROMPT, stream=True),
        wire.completion_frames("cmpl-1"),
        lambda chunk: chunk.choices[0].text,
    ),
    _openai(
        "responses",
        lambda llm, _: llm.responses.create(**INPUT, stream=True),
        wire.response_frames("resp_1"),
        lambda event: getattr(event, "delta", None),
    ),
    Kind(
        "messages",
        lambda llm, _: llm.messages.create(**ANTHROPIC, stream=True),
        wire.message_frames("msg_1"),
        lambda event: getattr(getattr(event, "delta", None), "text", None),
        client=lambda url: anthropic.AsyncAnthropic(base_url=url, api_key="sk-none"),
        blocking_client=lambda url: anthropic.Anthropic(base_url=url, api_key="sk-none"),
        metered=for_anthropic.metered,
        blocking_metered=blocking_anthropic.metered,
        model=CLAUDE,
        input_tokens=1_000,
    ),
    _litellm("litellm-openai", wire.chat_frames("chatcmpl-1")),
    _litellm("litellm-anthropic", wire.message_frames("msg_1"), model=CLAUDE, input_tokens=7),
]
BROKEN = r"peer closed|Connection error|not completed"
"""What the vendors' clients say of a cut connection; the last is LiteLLM's."""
