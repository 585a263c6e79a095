"""Bills what calls of LiteLLM use: `metered`, and the callback UsageLogger."""

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import litellm
from litellm.integrations.custom_logger import CustomLogger

from zaaz_client.adapters.billing import Billing, StreamBilling, key_of_response
from zaaz_client.adapters.figures import FinishedCall, UnknownUsageHandler, openai_figures
from zaaz_client.adapters.metering import CallMeter, Meter
from zaaz_client.adapters.model_names import litellm_model
from zaaz_client.adapters.readers import ChoicesReader, Reader
from zaaz_client.usage_stream import UsageStream

_VENDOR: Final = "litellm"

_log = logging.getLogger("zaaz_client")


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
    meter = Meter(_VENDOR, billing, model_name, on_unknown_usage)
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
        reader = ChoicesReader(arguments.get("n") or 1)
        if arguments.get("stream"):
            reader = _stream_reader(request)
        return await self._call(litellm.acompletion, reader, request)

    async def aembedding(self, model: str, **arguments: Any) -> Any:
        """`litellm.aembedding`."""
        return await self._call(litellm.aembedding, ChoicesReader(), {"model": model, **arguments})

    async def _call(
        self, function: Callable[..., Any], reader: Reader, request: dict[str, Any]
    ) -> Any:
        name = _full_name(request["model"], request.get("custom_llm_provider"))
        call = self._meter.begin(reader, {**request, "model": name})
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


def user_of_call(told: Mapping[str, Any]) -> str:
    """Whom LiteLLM's `metadata` names as zaaz_user_id, or else its `user`."""
    parameters = told.get("litellm_params") or {}
    metadata = parameters.get("metadata") or {}
    return str(metadata.get("zaaz_user_id") or told.get("user") or "")


class UsageLogger(CustomLogger):  # type: ignore[misc,unused-ignore]
    """A callback of LiteLLM's that sends a UsageEvent for every call that LiteLLM tells of.

        litellm.callbacks.append(UsageLogger(stream))
        await litellm.acompletion(..., metadata={"zaaz_user_id": user_id})

    `user_id`: finds whom to bill in what LiteLLM tells callbacks (its `kwargs`);
    for "" nobody is, and an error is logged. The rest is as for `metered`.

    LiteLLM tells of asynchronous calls that ended, of those that failed, with
    what it counted of a stream that broke; of a stream that its reader left it
    tells nothing, nor of synchronous calls to this. Use `metered` for those.
    Answers out of LiteLLM's cache are free.
    """

    def __init__(
        self,
        stream: UsageStream,
        *,
        user_id: Callable[[Mapping[str, Any]], str] = user_of_call,
        usage_key: Callable[[FinishedCall], str] = key_of_response,
        feature_endpoint: str = "",
        labels: Mapping[str, str] | None = None,
        model_name: Callable[[str], str] = litellm_model,
    ) -> None:
        super().__init__()
        self._user_id = user_id
        self._model_name = model_name
        self._billing_of: Callable[[str], Billing] = partial(
            StreamBilling,
            stream,
            usage_key=usage_key,
            feature_endpoint=feature_endpoint,
            labels=labels,
        )

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """LiteLLM: a call has ended."""
        if not kwargs.get("cache_hit"):
            await self._bill(kwargs, getattr(response_obj, "usage", None), complete=True)

    async def async_log_failure_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """LiteLLM: a call has failed. Where a stream broke, LiteLLM has counted what came."""
        await self._bill(kwargs, kwargs.get("combined_usage_object"), complete=False)

    async def _bill(self, told: dict[str, Any], usage: Any, *, complete: bool) -> None:
        if (figures := openai_figures(usage)) is None:
            return
        finished = FinishedCall(
            vendor=_VENDOR,
            ai_model=self._model_name(_full_name(told["model"], told.get("custom_llm_provider"))),
            response_id=told["litellm_call_id"],
            figures=figures,
            complete=complete,
        )
        if not (user_id := self._user_id(told)):
            _log.error("not billed, since it names no user: %s", finished)
            return
        try:
            await self._billing_of(user_id).settle(finished, finished)
        except BaseException as error:  # LiteLLM keeps it to itself
            _log.error("not billed: %s: %r", finished, error)
            raise


class _Reader(ChoicesReader):
    """LiteLLM's streams tell their usage in an event that has a choice, of no content."""

    def hides(self, event: Any) -> bool:
        return self._usage_hidden and getattr(event, "usage", None) is not None


def _stream_reader(request: dict[str, Any]) -> ChoicesReader:
    """Have the usage of a stream told where its provider can."""
    choices = request.get("n") or 1
    chosen = request.get("stream_options") or {}
    if "include_usage" in chosen:
        return _Reader(choices, usage_asked=bool(chosen["include_usage"]))
    request["stream_options"] = {**chosen, "include_usage": True}
    return _Reader(choices, usage_asked=True, usage_hidden=True)


def _full_name(model: str, provider: str | None = None) -> str:
    """A model's name with its provider's."""
    if provider is None:
        with contextlib.suppress(litellm.exceptions.BadRequestError):  # a provider nobody knows
            model, provider, *_ = litellm.get_llm_provider(model)
    return model if not provider or model.startswith(f"{provider}/") else f"{provider}/{model}"
