"""Bills what calls of LiteLLM use: `metered`, and the callback UsageLogger."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import litellm

from zaaz_client.adapters.billing import Billing
from zaaz_client.adapters.figures import UnknownUsageHandler
from zaaz_client.adapters.kinds import expect
from zaaz_client.adapters.litellm_logger import UsageLogger, user_of_call
from zaaz_client.adapters.litellm_requests import VENDOR, asked, completion_reader
from zaaz_client.adapters.metering import CallMeter, Meter
from zaaz_client.adapters.model_names import litellm_model
from zaaz_client.adapters.readers import ChoicesReader, Reader

__all__ = ["MeteredCalls", "UsageLogger", "WatchedCompletion", "metered", "user_of_call"]


@asynccontextmanager
async def metered(
    billing: Billing,
    *,
    model_name: Callable[[str], str] = litellm_model,
    on_unknown_usage: UnknownUsageHandler | None = None,
) -> AsyncIterator["MeteredCalls"]:
    """LiteLLM's functions, whose calls are billed.

        async with metered(StreamBilling(stream, user_id)) as llm:
            answer = await llm.acompletion(model="gpt-4o-mini", messages=messages)

    Each call is billed once, whatever was tried again. Do not bill the same
    calls by a UsageLogger, too.
    `model_name`: makes the model's value in the platform of LiteLLM's name with its provider.
    `on_unknown_usage`: says what to bill for a stream that was broken off
    before its end, whose usage nobody has told. See the README.
    A call that cannot be billed raises ZaazError.
    """
    expect(billing, Billing, "those of zaaz_client.adapters")
    meter = Meter(VENDOR, billing, model_name, on_unknown_usage)
    try:
        yield MeteredCalls(meter)
    finally:
        await meter.end()


class MeteredCalls:
    """Functions of LiteLLM with the arguments and results that they have there."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    async def acompletion(self, model: str, messages: list[Any], **arguments: Any) -> Any:
        """`litellm.acompletion`: with stream=True a WatchedCompletion."""
        request = {"model": model, "messages": messages, **arguments}
        return await self._call(litellm.acompletion, completion_reader(request), request)

    async def aembedding(self, model: str, **arguments: Any) -> Any:
        """`litellm.aembedding`."""
        return await self._call(litellm.aembedding, ChoicesReader(), {"model": model, **arguments})

    async def _call(
        self, function: Callable[..., Any], reader: Reader, request: dict[str, Any]
    ) -> Any:
        call = self._meter.begin(reader, asked(request))
        try:
            answer = await function(**request)
        except BaseException as error:
            await call.break_off(error)
            raise
        if request.get("stream"):
            return WatchedCompletion(answer, call)
        call.answer(answer)
        await call.finish()
        return answer


class WatchedCompletion:
    """LiteLLM's stream of a completion, watched."""

    def __init__(self, stream: Any, call: CallMeter) -> None:
        self._stream = stream
        self._call = call
        self._events: AsyncGenerator[Any, None] = call.events(stream, stream.aclose)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._events

    async def __anext__(self) -> Any:
        return await anext(self._events)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def aclose(self) -> None:
        """Close the connection, and bill what it came to."""
        await self._call.close()
        await self._stream.aclose()
