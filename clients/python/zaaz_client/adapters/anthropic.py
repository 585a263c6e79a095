"""Bills what calls of Anthropic's client use: `metered`."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from anthropic import AsyncAnthropic, AsyncStream

from zaaz_client.adapters.anthropic_requests import reader_of
from zaaz_client.adapters.billing import Billing
from zaaz_client.adapters.figures import UnknownUsageHandler
from zaaz_client.adapters.generated_clients import MeteredRequests, WatchedStream
from zaaz_client.adapters.kinds import expect
from zaaz_client.adapters.metering import Meter
from zaaz_client.adapters.model_names import anthropic_model

_Client = TypeVar("_Client", bound=AsyncAnthropic)


@asynccontextmanager
async def metered(
    client: _Client,
    billing: Billing,
    *,
    model_name: Callable[[str], str] = anthropic_model,
    on_unknown_usage: UnknownUsageHandler | None = None,
) -> AsyncIterator[_Client]:
    """A client of the same class and connections whose messages are billed.

        async with metered(anthropic, StreamBilling(stream, user_id)) as client:
            answer = await client.messages.create(model=model, max_tokens=500, messages=messages)

    Each message is billed once, whatever was tried again; other calls pass.
    `client` is AsyncAnthropic or made from it, and is left as it is; TypeError
    for a synchronous one, which `adapters.blocking` is for, and for
    `with_streaming_response`.
    `model_name`: makes the model's value in the platform of the name that was asked for.
    `on_unknown_usage`: says what to bill for a stream that was broken off before
    its end, of which Anthropic tells the input at its beginning. See the README.
    A call that cannot be billed raises ZaazError.
    """
    instead = "zaaz_client.adapters.blocking.anthropic.metered for an Anthropic"
    expect(client, AsyncAnthropic, instead)
    expect(billing, Billing, "those of zaaz_client.adapters")
    meter = Meter("anthropic", billing, model_name, on_unknown_usage)
    try:
        yield MeteredRequests(meter, reader_of, AsyncStream, _Stream).of(client)
    finally:
        await meter.end()


class _Stream(WatchedStream, AsyncStream[Any]):
    """A stream of Anthropic's that is watched."""
