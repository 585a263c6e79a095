"""Bills what synchronous calls of LiteLLM use: `metered`."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import litellm

from zaaz_client.adapters.blocking.billing import Billing
from zaaz_client.adapters.blocking.metering import CallMeter, Meter
from zaaz_client.adapters.figures import UnknownUsageHandler
from zaaz_client.adapters.kinds import expect
from zaaz_client.adapters.litellm_requests import VENDOR, asked, completion_reader
from zaaz_client.adapters.model_names import litellm_model
from zaaz_client.adapters.readers import ChoicesReader, Reader

__all__ = ["MeteredCalls", "WatchedCompletion", "metered"]


@contextmanager
def metered(
    billing: Billing,
    *,
    model_name: Callable[[str], str] = litellm_model,
    on_unknown_usage: UnknownUsageHandler | None = None,
) -> Iterator["MeteredCalls"]:
    """As `adapters.litellm.metered`, of the synchronous functions.

        with metered(StreamBilling(stream, user_id)) as llm:
            answer = llm.completion(model="gpt-4o-mini", messages=messages)

    A stream that its reader drops without closing it is billed with the next
    call, or at the end of the block.
    """
    expect(billing, Billing, "those of zaaz_client.adapters.blocking")
    meter = Meter(VENDOR, billing, model_name, on_unknown_usage)
    try:
        yield MeteredCalls(meter)
    finally:
        meter.end()


class MeteredCalls:
    """Functions of LiteLLM with the arguments and results that they have there."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def completion(self, model: str, messages: list[Any], **arguments: Any) -> Any:
        """`litellm.completion`: with stream=True a WatchedCompletion."""
        request = {"model": model, "messages": messages, **arguments}
        return self._call(litellm.completion, completion_reader(request), request)

    def embedding(self, model: str, **arguments: Any) -> Any:
        """`litellm.embedding`."""
        return self._call(litellm.embedding, ChoicesReader(), {"model": model, **arguments})

    def _call(self, function: Callable[..., Any], reader: Reader, request: dict[str, Any]) -> Any:
        call = self._meter.begin(reader, asked(request))
        try:
            answer = function(**request)
        except BaseException as error:
            call.break_off(error)
            raise
        if request.get("stream"):
            return WatchedCompletion(answer, call)
        call.answer(answer)
        call.finish()
        return answer


class WatchedCompletion:
    """LiteLLM's stream of a completion, watched. `close` it where it is not read to its end."""

    def __init__(self, stream: Any, call: CallMeter) -> None:
        self._stream = stream
        self._call = call
        self._events: Generator[Any, None, None] = call.events(stream, self._shut)

    def __iter__(self) -> Iterator[Any]:
        return self._events

    def __next__(self) -> Any:
        return next(self._events)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, and bill what it came to."""
        self._call.break_off()

    def _shut(self) -> None:
        """Close the provider's stream, which is in one of LiteLLM's: that has a close for loops."""
        stream = self._stream.completion_stream
        while stream is not None and not hasattr(stream, "close"):
            stream = getattr(stream, "response_iterator", None)
        if stream is not None:
            stream.close()
