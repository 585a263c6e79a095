"""How vendors' names of models become the platform's: their `value`, as in "openai/gpt-4o-mini"."""

import re
from typing import Final

_OPENAI_DATE: Final = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_ANTHROPIC_DATE: Final = re.compile(r"-\d{8}$")
_OWN_PRICE: Final = frozenset({"gpt-4o-2024-05-13"})
"""Snapshots whose price is not that of their model."""
_PROVIDERS: Final = {
    "bedrock": "aws",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "text-completion-openai": "openai",
    "together_ai": "together",
    "vertex_ai": "google",
    "xai": "x-ai",
}
"""LiteLLM's names of those whom the platform names otherwise."""


def openai_model(name: str) -> str:
    """One of OpenAI's; a snapshot that a date names is its model."""
    return "openai/" + (name if name in _OWN_PRICE else _OPENAI_DATE.sub("", name))


def anthropic_model(name: str) -> str:
    """One of Anthropic's; a snapshot that a date names is its model."""
    return "anthropic/" + _ANTHROPIC_DATE.sub("", name)


def litellm_model(name: str) -> str:
    """One that LiteLLM names with its provider, as in "gemini/gemini-2.5-pro"."""
    provider, _, model = name.partition("/")
    provider = _PROVIDERS.get(provider, provider)
    if provider == "openai":
        return openai_model(model)
    if provider == "anthropic":
        return anthropic_model(model)
    return f"{provider}/{model}"
