"""Bills what calls of Anthropic's synchronous client use: `metered`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from anthropic import Anthropic, Stream

from zaaz_client.adapters.anthropic_requests import reader_of
from zaaz_client.adapters.blocking.billing import Billing
from zaaz_client.adapters.blocking.generated_clients import MeteredRequests, WatchedStream
from zaaz_client.adapters.blocking.metering import Meter
from zaaz_client.adapters.figures import UnknownUsageHandler
from zaaz_client.adapters.kinds import expect
from zaaz_client.adapters.model_names import anthropic_model

_Client = TypeVar("_Client", bound=Anthropic)


@contextmanager
def metered(
    client: _Client,
    billing: Billing,
    *,
    model_name: Callable[[str], str] = anthropic_model,
    on_unknown_usage: UnknownUsageHandler | None = None,
) -> Iterator[_Client]:
    """As `adapters.anthropic.metered`, of an Anthropic or what is made from it.

        with metered(anthropic, StreamBilling(stream, user_id)) as client:
            answer = client.messages.create(model=model, max_tokens=500, messages=messages)

    Threads may share the client. A stream that its reader drops without closing
    it is billed with the next call, or at the end of the block.
    """
    instead = "zaaz_client.adapters.anthropic.metered for an AsyncAnthropic"
    expect(client, Anthropic, instead)
    expect(billing, Billing, "those of zaaz_client.adapters.blocking")
    meter = Meter("anthropic", billing, model_name, on_unknown_usage)
    try:
        yield MeteredRequests(meter, reader_of, Stream, _Stream).of(client)
    finally:
        meter.end()


class _Stream(WatchedStream, Stream[Any]):
    """A stream of Anthropic's that is watched."""
