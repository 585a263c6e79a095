"""Bills what calls of OpenAI's client use: `metered`."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from openai import AsyncOpenAI, AsyncStream

from zaaz_client.adapters.billing import Billing
from zaaz_client.adapters.figures import UnknownUsageHandler
from zaaz_client.adapters.generated_clients import MeteredRequests, WatchedStream
from zaaz_client.adapters.metering import Meter
from zaaz_client.adapters.model_names import openai_model
from zaaz_client.adapters.readers import ChoicesReader, Reader, ResponsesReader

_Client = TypeVar("_Client", bound=AsyncOpenAI)

_WITH_CHOICES: Final = frozenset({"/chat/completions", "/completions", "/embeddings"})
_RESPONSES: Final = frozenset({"/responses", "/responses/compact"})


@asynccontextmanager
async def metered(
    client: _Client,
    billing: Billing,
    *,
    model_name: Callable[[str], str] = openai_model,
    on_unknown_usage: UnknownUsageHandler | None = None,
) -> AsyncIterator[_Client]:
    """A client of the same class and connections whose calls are billed.

        async with metered(openai, StreamBilling(stream, user_id)) as client:
            answer = await client.chat.completions.create(model="gpt-4o-mini", messages=messages)

    Billed are chat completions, completions, embeddings and responses, each
    once, whatever was tried again; other calls pass. `client` is AsyncOpenAI or
    made from it, and is left as it is; TypeError for a synchronous one, and for
    `with_streaming_response`.
    `model_name`: makes the model's value in the platform of the name that was asked for.
    `on_unknown_usage`: says what to bill for a stream that was broken off before
    its end, of which OpenAI tells nothing. See the README.
    A call that cannot be billed raises ZaazError.
    """
    if not isinstance(client, AsyncOpenAI):
        raise TypeError(f"an AsyncOpenAI can be metered, {type(client).__name__} cannot")
    meter = Meter("openai", billing, model_name, on_unknown_usage)
    try:
        yield MeteredRequests(meter, _reader_of, AsyncStream, _Stream).of(client)
    finally:
        await meter.end()


class _Stream(WatchedStream, AsyncStream[Any]):
    """A stream of OpenAI's that is watched."""


def _reader_of(options: Any, stream: bool) -> Reader | None:
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
