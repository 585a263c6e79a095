"""UsageLogger: bills what LiteLLM tells its callbacks of finished calls."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from litellm.integrations.custom_logger import CustomLogger
from zaaz.credits.v1.usage_service_pb2 import UsageEvent

from zaaz_client.adapters.any_thread import AnyThreadSender
from zaaz_client.adapters.billing import EventForm, key_of_response
from zaaz_client.adapters.figures import FinishedCall, UsageFigures, openai_figures
from zaaz_client.adapters.litellm_requests import VENDOR, full_name
from zaaz_client.adapters.litellm_streams import usage_of_broken_stream
from zaaz_client.adapters.model_names import litellm_model
from zaaz_client.blocking import BlockingUsageStream
from zaaz_client.usage_stream import UsageStream

MAX_REMEMBERED_CALLS: Final = 10_000
"""LiteLLM may tell of a call twice, in threads beside each other: soon, so these are enough."""

_log = logging.getLogger("zaaz_client")


def user_of_call(told: Mapping[str, Any]) -> str:
    """Whom LiteLLM's `metadata` names as zaaz_user_id, or else its `user`."""
    parameters = told.get("litellm_params") or {}
    metadata = parameters.get("metadata") or {}
    return str(metadata.get("zaaz_user_id") or told.get("user") or "")


class UsageLogger(CustomLogger):  # type: ignore[misc,unused-ignore]
    """A callback of LiteLLM's that sends a UsageEvent for every call that LiteLLM tells of.

        litellm.callbacks.append(UsageLogger(stream))
        await litellm.acompletion(..., metadata={"zaaz_user_id": user_id})

    `stream`: a UsageStream, of the event loop that runs where this is made, or
    a BlockingUsageStream. Either way asynchronous calls are billed as well as
    synchronous ones, of whatever thread.
    `user_id`: finds whom to bill in what LiteLLM tells callbacks (its `kwargs`);
    for "" nobody is, and an error is logged. It is called in LiteLLM's threads
    for synchronous calls. The rest is as for `metered`.

    LiteLLM tells of calls that ended, and of those that failed, with what came
    of a stream that broke; of a stream that its reader left it tells nothing.
    Use `metered` for those. It tells so in the background: an event that comes
    after the end of the stream is logged as not billed.
    Answers out of LiteLLM's cache are free.
    """

    def __init__(
        self,
        stream: UsageStream | BlockingUsageStream,
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
        self._form = EventForm(
            usage_key=usage_key, feature_endpoint=feature_endpoint, labels=dict(labels or {})
        )
        self._sender = AnyThreadSender(stream)
        self._told = _Told()

    @property
    def handed_over(self) -> int:
        """How many events of other threads are on their way into the stream."""
        return self._sender.handed_over

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """LiteLLM: an asynchronous call has ended."""
        await self._bill(kwargs, _usage_of_answer(kwargs, response_obj), complete=True)

    async def async_log_failure_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """LiteLLM: an asynchronous call has failed. What came of a stream is counted."""
        await self._bill(kwargs, usage_of_broken_stream(kwargs), complete=False)

    def log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """LiteLLM, in a thread of its own: a synchronous call has ended."""
        self._bill_blocking(kwargs, _usage_of_answer(kwargs, response_obj), complete=True)

    def log_failure_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """LiteLLM, in the caller's thread or its own: a synchronous call has failed."""
        self._bill_blocking(kwargs, usage_of_broken_stream(kwargs), complete=False)

    async def _bill(self, told: dict[str, Any], usage: Any, *, complete: bool) -> None:
        try:
            if (event := self._event(told, usage, complete=complete)) is not None:
                await self._sender.send(event)
        except BaseException as error:  # LiteLLM keeps it to itself
            _log.error("not billed: %s: %r", _described(told, usage), error)
            raise

    def _bill_blocking(self, told: dict[str, Any], usage: Any, *, complete: bool) -> None:
        try:
            if (event := self._event(told, usage, complete=complete)) is not None:
                self._sender.send_blocking(event)
        except BaseException as error:  # LiteLLM keeps it to itself
            _log.error("not billed: %s: %r", _described(told, usage), error)
            raise

    def _event(self, told: dict[str, Any], usage: Any, *, complete: bool) -> UsageEvent | None:
        """What to send for a call; None for one that costs nothing, and where it was asked for."""
        if (figures := openai_figures(usage)) is None:
            return None
        finished = FinishedCall(
            vendor=VENDOR,
            ai_model=self._model_name(full_name(told["model"], told.get("custom_llm_provider"))),
            response_id=told["litellm_call_id"],
            figures=figures,
            complete=complete,
        )
        if not (user_id := self._user_id(told)):
            _log.error("not billed, since it names no user: %s", finished)
            return None
        if not self._told.is_new(told, finished):
            return None
        return self._form.event(user_id, finished)


class _Told:
    """The calls that were told of, the latest MAX_REMEMBERED_CALLS.

    LiteLLM calls the synchronous and the asynchronous method for one call of
    some kinds, as for a synchronous stream of its responses.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: OrderedDict[tuple[str, Any], UsageFigures] = OrderedDict()

    def is_new(self, told: Mapping[str, Any], finished: FinishedCall) -> bool:
        """Whether this is the first that is told of the call. Other figures later are logged."""
        # The id alone may be the caller's, who may give it to several calls.
        key = (finished.response_id, told.get("start_time"))
        with self._lock:
            before = self._calls.setdefault(key, finished.figures)
            is_new = before is finished.figures
            if len(self._calls) > MAX_REMEMBERED_CALLS:
                self._calls.popitem(last=False)
        if before != finished.figures:
            _log.error("not billed, since it was billed as %s before: %s", before, finished)
        return is_new


def _usage_of_answer(told: Mapping[str, Any], answer: Any) -> Any:
    """None where nothing was used: the answer was in LiteLLM's cache, or it has no usage."""
    return None if told.get("cache_hit") else getattr(answer, "usage", None)


def _described(told: Mapping[str, Any], usage: Any) -> str:
    return f"{told.get('model')} {told.get('litellm_call_id')} {usage}"
