"""What a call of a language model has used, in the figures that are billed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFigures:
    """Tokens as a UsageEvent has them: those of the cache are beside `input_tokens`, not in it."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: Self) -> "UsageFigures":
        return UsageFigures(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedCall:
    """A call that is over, and what is billed for it."""

    vendor: str
    """As in "openai"."""
    ai_model: str
    """The model's `value` in the platform, as in "openai/gpt-4o-mini"."""
    response_id: str
    """The vendor's; empty where there is none."""
    figures: UsageFigures
    complete: bool
    """The vendor has told the figures. Else they are what was known or was estimated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownUsage:
    """A call whose usage the vendor has not told, or not to the end."""

    vendor: str
    ai_model: str
    response_id: str
    request: Mapping[str, Any] = field(repr=False)
    """The body of the request: messages and all."""
    text: str = field(repr=False)
    """What the model has said as far as it came, arguments of tool calls with it."""
    known: UsageFigures
    """What the vendor did tell."""


UnknownUsageHandler = Callable[[UnknownUsage], UsageFigures | None]
"""Says what to bill for a call of unknown usage; None for what is known of it.

It must not block; what it raises is logged, and what is known is billed.
"""


def count_with(count_tokens: Callable[[str], int]) -> UnknownUsageHandler:
    """Estimate unknown usage by a tokenizer: `count_tokens` says how many tokens a text has.

    What the vendor has told of the input is left as it is, and output never gets less.
    """

    def estimate(unknown: UnknownUsage) -> UsageFigures:
        known = unknown.known
        has_input = known.input_tokens or known.cache_read_tokens or known.cache_write_tokens
        asked = "" if has_input else "\n".join(_texts(unknown.request))
        return UsageFigures(
            input_tokens=count_tokens(asked) if asked else known.input_tokens,
            output_tokens=max(known.output_tokens, count_tokens(unknown.text)),
            cache_read_tokens=known.cache_read_tokens,
            cache_write_tokens=known.cache_write_tokens,
        )

    return estimate


_SAID: Final = ("system", "instructions", "tools", "messages", "input", "prompt")
"""Fields of a request that have text for the model."""


def _texts(request: Mapping[str, Any]) -> Iterator[str]:
    for name in _SAID:
        yield from _strings(request.get(name))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if not value.startswith("data:"):  # an image or a sound, which no tokenizer of text counts
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part)


def openai_figures(usage: Any) -> UsageFigures | None:
    """The figures of a `usage` of OpenAI's, whichever API it is of, or of LiteLLM's.

    Its input has the tokens of the cache in it.
    """
    if usage is None:
        return None
    asked = _count(usage, "prompt_tokens", "input_tokens")
    details = _first(usage, "prompt_tokens_details", "input_tokens_details")
    read = min(_count(details, "cached_tokens"), asked)
    written = min(_count(details, "cache_write_tokens"), asked - read)
    return UsageFigures(
        input_tokens=asked - read - written,
        output_tokens=_count(usage, "completion_tokens", "output_tokens"),
        cache_read_tokens=read,
        cache_write_tokens=written,
    )


def anthropic_figures(usage: Any, before: UsageFigures | None = None) -> UsageFigures | None:
    """The figures of a `usage` of Anthropic's, which has the tokens of the cache beside the input.

    `before`: those of an earlier event of the same stream; what is left out stands.
    """
    if usage is None:
        return before
    before = before or UsageFigures()
    return UsageFigures(
        input_tokens=_count(usage, "input_tokens", default=before.input_tokens),
        output_tokens=_count(usage, "output_tokens", default=before.output_tokens),
        cache_read_tokens=_count(
            usage, "cache_read_input_tokens", default=before.cache_read_tokens
        ),
        cache_write_tokens=_count(
            usage, "cache_creation_input_tokens", default=before.cache_write_tokens
        ),
    )


def _first(value: Any, *names: str) -> Any:
    """The first of these fields that is there and not None. LiteLLM has usages that are dicts."""
    get = value.get if isinstance(value, Mapping) else partial(getattr, value)
    found = (get(name, None) for name in names)
    return next((each for each in found if each is not None), None)


def _count(value: Any, *names: str, default: int = 0) -> int:
    found = _first(value, *names)
    return default if found is None else max(0, int(found))
