"""What LiteLLM calls its models."""

import contextlib
from typing import Final

import litellm

VENDOR: Final = "litellm"


def full_name(model: str, provider: str | None = None) -> str:
    """A model's name with its provider's."""
    if provider is None:
        with contextlib.suppress(litellm.exceptions.BadRequestError):  # a provider nobody knows
            model, provider, *_ = litellm.get_llm_provider(model)
    return model if not provider or model.startswith(f"{provider}/") else f"{provider}/{model}"
