"""Bills what calls of OpenAI's synchronous client use: `metered`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from openai import OpenAI, Stream

from zaaz_client.adapters.blocking.billing import Billing
from zaaz_client.adapters.blocking.generated_clients import MeteredRequests, WatchedStream
from zaaz_client.adapters.blocking.metering import Meter
from zaaz_client.adapters.figures import UnknownUsageHandler
from zaaz_client.adapters.kinds import expect
from zaaz_client.adapters.model_names import openai_model
from zaaz_client.adapters.openai_requests import reader_of

_Client = TypeVar("_Client", bound=OpenAI)


@contextmanager
def metered(
    client: _Client,
    billing: Billing,
    *,
    model_name: Callable[[str], str] = openai_model,
    on_unknown_usage: UnknownUsageHandler | None = None,
) -> Iterator[_Client]:
    """As `adapters.openai.metered`, of an OpenAI or what is made from it.

        with metered(openai, StreamBilling(stream, user_id)) as client:
            answer = client.chat.completions.create(model="gpt-4o-mini", messages=messages)

    Threads may share the client. A stream that its reader drops without closing
    it is billed with the next call, or at the end of the block.
    """
    expect(client, OpenAI, "zaaz_client.adapters.openai.metered for an AsyncOpenAI")
    expect(billing, Billing, "those of zaaz_client.adapters.blocking")
    meter = Meter("openai", billing, model_name, on_unknown_usage)
    try:
        yield MeteredRequests(meter, reader_of, Stream, _Stream).of(client)
    finally:
        meter.end()


class _Stream(WatchedStream, Stream[Any]):
    """A stream of OpenAI's that is watched."""
