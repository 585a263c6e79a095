"""Which requests of OpenAI's client are billed, and how their answers are read."""

from typing import Any, Final

from zaaz_client.adapters.readers import ChoicesReader, Reader, ResponsesReader

_WITH_CHOICES: Final = frozenset({"/chat/completions", "/completions", "/embeddings"})
_RESPONSES: Final = frozenset({"/responses", "/responses/compact"})


def reader_of(options: Any, stream: bool) -> Reader | None:
    """None for what is not billed. Has the usage of a streamed completion told."""
    if options.method.lower() != "post":
        return None
    path = options.url.partition("?")[0]  # the beta API has "?beta=true" there
    if path in _RESPONSES:
        return ResponsesReader()
    if path not in _WITH_CHOICES:
        return None
    return _choices_reader(options, stream)


def _choices_reader(options: Any, stream: bool) -> ChoicesReader:
    body: dict[str, Any] = options.json_data
    choices = body.get("n") or 1
    if not stream:
        return ChoicesReader(choices)
    chosen = (options.extra_json or {}).get("stream_options") or body.get("stream_options") or {}
    if "include_usage" in chosen:
        return ChoicesReader(choices, usage_asked=bool(chosen["include_usage"]))
    options.json_data = {**body, "stream_options": {**chosen, "include_usage": True}}
    return ChoicesReader(choices, usage_asked=True, usage_hidden=True)
