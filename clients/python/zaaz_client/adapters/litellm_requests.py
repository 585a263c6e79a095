"""How LiteLLM names its models, and how its answers are read."""

import contextlib
from collections.abc import Mapping
from typing import Any, Final

import litellm

from zaaz_client.adapters.readers import ChoicesReader

VENDOR: Final = "litellm"


def full_name(model: str, provider: str | None = None) -> str:
    """A model's name with its provider's."""
    if provider is None:
        with contextlib.suppress(litellm.exceptions.BadRequestError):  # a provider nobody knows
            model, provider, *_ = litellm.get_llm_provider(model)
    return model if not provider or model.startswith(f"{provider}/") else f"{provider}/{model}"


def asked(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request, with the whole name of its model."""
    return {**request, "model": full_name(request["model"], request.get("custom_llm_provider"))}


def completion_reader(request: dict[str, Any]) -> ChoicesReader:
    """Has the usage of a stream told where its provider can."""
    return (
        _stream_reader(request) if request.get("stream") else ChoicesReader(request.get("n") or 1)
    )


class _Reader(ChoicesReader):
    """LiteLLM's streams tell their usage in an event that has a choice, of no content."""

    def hides(self, event: Any) -> bool:
        return self._usage_hidden and getattr(event, "usage", None) is not None


def _stream_reader(request: dict[str, Any]) -> ChoicesReader:
    choices = request.get("n") or 1
    chosen = request.get("stream_options") or {}
    if "include_usage" in chosen:
        return _Reader(choices, usage_asked=bool(chosen["include_usage"]))
    request["stream_options"] = {**chosen, "include_usage": True}
    return _Reader(choices, usage_asked=True, usage_hidden=True)
