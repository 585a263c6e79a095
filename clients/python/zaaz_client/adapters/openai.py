"""Bills what calls of OpenAI's client use: `metered`."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from openai import AsyncOpenAI, AsyncStream

from zaaz_client.adapters.billing import Billing
from zaaz_client.adapters.figures import UnknownUsageHandler
from zaaz_client.adapters.generated_clients import MeteredRequests, WatchedStream
from zaaz_client.adapters.kinds import expect
from zaaz_client.adapters.metering import Meter
from zaaz_client.adapters.model_names import openai_model
from zaaz_client.adapters.openai_requests import reader_of

_Client = TypeVar("_Client", bound=AsyncOpenAI)


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
    made from it, and is left as it is; TypeError for a synchronous one, which
    `adapters.blocking` is for, and for `with_streaming_response`.
    `model_name`: makes the model's value in the platform of the name that was asked for.
    `on_unknown_usage`: says what to bill for a stream that was broken off before
    its end, of which OpenAI tells nothing. See the README.
    A call that cannot be billed raises ZaazError.
    """
    expect(client, AsyncOpenAI, "zaaz_client.adapters.blocking.openai.metered for an OpenAI")
    expect(billing, Billing, "those of zaaz_client.adapters")
    meter = Meter("openai", billing, model_name, on_unknown_usage)
    try:
        yield MeteredRequests(meter, reader_of, AsyncStream, _Stream).of(client)
    finally:
        await meter.end()


class _Stream(WatchedStream, AsyncStream[Any]):
    """A stream of OpenAI's that is watched."""
