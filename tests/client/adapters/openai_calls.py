"""What tests of OpenAI's client ask, and what they make of it."""

from typing import Any

from openai import AsyncStream
from openai.types.chat import ChatCompletionChunk
from zaaz_client.adapters import UnknownUsage, UsageFigures

from tests.serving import MODEL

ASKED: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What is it?"}]}
FULL = UsageFigures(input_tokens=1_000, output_tokens=500)
CUT = r"peer closed|Connection error"
"""What openai 2 and openai 3 say of a cut connection."""
ESTIMATE = UsageFigures(input_tokens=3, output_tokens=2)


class BrokeError(Exception):
    """The reader has had enough."""


def words(text: str) -> int:
    return len(text.split())


def estimate(unknown: UnknownUsage) -> UsageFigures:
    """Of the question's words and the answer's pieces that have come."""
    assert (unknown.ai_model, unknown.known) == (MODEL, UsageFigures())
    asked = unknown.request["messages"][0]["content"]
    return UsageFigures(input_tokens=words(asked), output_tokens=len(unknown.text) // 2)


async def read_into(
    chunks: list[ChatCompletionChunk], stream: AsyncStream[ChatCompletionChunk]
) -> None:
    async for chunk in stream:
        chunks.append(chunk)


def texts(chunks: list[ChatCompletionChunk]) -> list[str]:
    return [chunk.choices[0].delta.content or "" for chunk in chunks]
