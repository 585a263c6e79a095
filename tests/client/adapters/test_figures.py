"""What needs no vendor: figures, names of models, keys."""

from types import SimpleNamespace
from typing import Any

import pytest
from zaaz_client.adapters import (
    FinishedCall,
    UnknownUsage,
    UsageFigures,
    count_with,
    key_of_response,
)
from zaaz_client.adapters.billing import MAX_KEY_CHARACTERS
from zaaz_client.adapters.figures import anthropic_figures, openai_figures
from zaaz_client.adapters.model_names import anthropic_model, litellm_model, openai_model


def call(response_id: str) -> FinishedCall:
    return FinishedCall(
        vendor="openai",
        ai_model="openai/gpt-4o-mini",
        response_id=response_id,
        figures=UsageFigures(),
        complete=True,
    )


def test_figures_add_up() -> None:
    one = UsageFigures(input_tokens=1, output_tokens=2, cache_read_tokens=3, cache_write_tokens=4)
    two = UsageFigures(input_tokens=2, output_tokens=4, cache_read_tokens=6, cache_write_tokens=8)
    assert one + one == two


@pytest.mark.parametrize("asked", [0, 10])
@pytest.mark.parametrize("cached", [None, 0, 4, 10, 99])
@pytest.mark.parametrize("written", [None, 3, 99])
def test_no_token_of_the_input_is_counted_twice(
    asked: int, cached: int | None, written: int | None
) -> None:
    details = SimpleNamespace(cached_tokens=cached, cache_write_tokens=written)
    usage = SimpleNamespace(
        prompt_tokens=asked, completion_tokens=None, prompt_tokens_details=details
    )
    figures = openai_figures(usage)
    assert figures is not None
    parts = (figures.input_tokens, figures.cache_read_tokens, figures.cache_write_tokens)
    assert sum(parts) == asked
    assert min(parts) >= 0


def test_a_usage_may_be_a_dict() -> None:
    """As LiteLLM tells its callbacks that of a stream of responses."""
    usage = {"prompt_tokens": 9, "completion_tokens": 5}
    told = {**usage, "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": None}}
    figures = UsageFigures(input_tokens=5, output_tokens=5, cache_read_tokens=4)
    assert openai_figures(told) == figures


def test_what_an_event_leaves_out_stands() -> None:
    begun = anthropic_figures(SimpleNamespace(input_tokens=9, cache_read_input_tokens=2))
    assert begun == UsageFigures(input_tokens=9, cache_read_tokens=2)
    grown = anthropic_figures(SimpleNamespace(output_tokens=5, input_tokens=None), begun)
    assert grown == UsageFigures(input_tokens=9, output_tokens=5, cache_read_tokens=2)
    assert anthropic_figures(None, grown) == grown


@pytest.mark.parametrize(
    ("named", "value"),
    [
        (openai_model("gpt-4o-mini"), "openai/gpt-4o-mini"),
        (openai_model("gpt-4o-mini-2024-07-18"), "openai/gpt-4o-mini"),
        (openai_model("gpt-4o-2024-05-13"), "openai/gpt-4o-2024-05-13"),
        (anthropic_model("claude-sonnet-4-5-20250929"), "anthropic/claude-sonnet-4-5"),
        (litellm_model("openai/gpt-4o-mini-2024-07-18"), "openai/gpt-4o-mini"),
        (litellm_model("anthropic/claude-sonnet-4-5-20250929"), "anthropic/claude-sonnet-4-5"),
        (litellm_model("vertex_ai/gemini-2.5-pro"), "google/gemini-2.5-pro"),
        (litellm_model("mistral/mistral-large"), "mistral/mistral-large"),
    ],
)
def test_names_of_models(named: str, value: str) -> None:
    assert named == value


def test_keys_are_of_the_response_and_never_too_long() -> None:
    assert key_of_response(call("chatcmpl-1")) == "openai:chatcmpl-1"
    long, other = call("r" * 500), call("r" * 499 + "s")
    assert len(key_of_response(long)) <= MAX_KEY_CHARACTERS
    assert key_of_response(long) == key_of_response(long) != key_of_response(other)
    assert key_of_response(call("")) != key_of_response(call(""))


class TestCountWith:
    def unknown(self, request: dict[str, Any], known: UsageFigures, text: str) -> UnknownUsage:
        return UnknownUsage(
            vendor="openai", ai_model="m", response_id="r", request=request, text=text, known=known
        )

    def test_what_is_said_to_the_model_is_counted_and_images_are_not(self) -> None:
        parts = [{"text": "abcde"}, {"image_url": {"url": "data:image/png;base64,AAAA"}}]
        request = {"model": "m", "messages": [{"content": parts}], "instructions": "xyz"}
        figures = count_with(len)(self.unknown(request, UsageFigures(), "four"))
        assert figures == UsageFigures(input_tokens=len("xyz\nabcde"), output_tokens=4)

    def test_what_is_known_stands(self) -> None:
        known = UsageFigures(input_tokens=50, output_tokens=9, cache_read_tokens=1)
        figures = count_with(len)(self.unknown({"messages": ["abc"]}, known, "four"))
        assert figures == known
