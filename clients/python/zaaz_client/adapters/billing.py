"""Where the figures of a call go: into a usage stream, or into a credit process."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Final
from uuid import uuid4

from zaaz.credits.v1.usage_service_pb2 import UsageEvent

from zaaz_client.adapters.figures import FinishedCall, UsageFigures
from zaaz_client.adapters.kinds import refuse
from zaaz_client.blocking import BlockingCreditProcess, BlockingUsageStream
from zaaz_client.credit_process import CreditProcess
from zaaz_client.usage_stream import UsageStream

MAX_KEY_CHARACTERS: Final = 128
"""Of a usage_key."""


class AnyBilling(ABC):  # noqa: B024 - its two kinds have methods that have to be there
    """Takes what calls have used. `call` is the same object for all that is said of one call."""

    def so_far(self, call: object, figures: UsageFigures) -> None:  # noqa: B027 - who wants it
        """A call that goes on has used so much by now."""


class Billing(AnyBilling):
    """What `metered` bills by."""

    @abstractmethod
    async def settle(self, call: object, finished: FinishedCall) -> None:
        """A call is over. Raises ZaazError where that cannot be billed."""


def key_of_response(call: FinishedCall) -> str:
    """The usage_key of a call: the vendor and its id of the response, or one of chance."""
    key = f"{call.vendor}:{call.response_id or uuid4().hex}"
    if len(key) > MAX_KEY_CHARACTERS:
        return f"{call.vendor}:{hashlib.sha256(key.encode()).hexdigest()}"
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class EventForm:
    """What the events of calls have in common."""

    usage_key: Callable[[FinishedCall], str] = key_of_response
    feature_endpoint: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    def event(self, user_id: str, finished: FinishedCall) -> UsageEvent:
        """The event of a call that has ended now."""
        figures = finished.figures
        event = UsageEvent(
            usage_key=self.usage_key(finished),
            user_id=user_id,
            feature_endpoint=self.feature_endpoint,
            ai_model=finished.ai_model,
            input_tokens=figures.input_tokens,
            output_tokens=figures.output_tokens,
            cache_read_tokens=figures.cache_read_tokens,
            cache_write_tokens=figures.cache_write_tokens,
            labels=self.labels,
        )
        event.occurred_time.GetCurrentTime()
        return event


class StreamBilling(Billing):
    """Bills each call as a UsageEvent.

    `usage_key`: makes the event's key of the call: unique per user, since what
    is sent twice under one key is billed once.
    `feature_endpoint`, `labels`: of the events.
    Events go out when their calls are over. They are durable when the stream says so.
    """

    def __init__(
        self,
        stream: UsageStream,
        user_id: str,
        *,
        usage_key: Callable[[FinishedCall], str] = key_of_response,
        feature_endpoint: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> None:
        refuse(stream, BlockingUsageStream, "zaaz_client.adapters.blocking.StreamBilling")
        self._stream = stream
        self._user_id = user_id
        self._form = EventForm(
            usage_key=usage_key, feature_endpoint=feature_endpoint, labels=dict(labels or {})
        )

    async def settle(self, call: object, finished: FinishedCall) -> None:
        """Send the event, after a wait where the stream's buffer is full."""
        await self._stream.send(self._form.event(self._user_id, finished))


class ProcessReports(AnyBilling):
    """Reports all calls of a credit process together. Threads may share it."""

    def __init__(self, use: CreditProcess | BlockingCreditProcess) -> None:
        self._use = use
        self._lock = Lock()
        self._settled = UsageFigures()
        self._running: dict[object, UsageFigures] = {}

    def so_far(self, call: object, figures: UsageFigures) -> None:
        """Report it: it is billed should this process die."""
        with self._lock:
            self._running[call] = figures
            self._report()

    def add(self, call: object, figures: UsageFigures) -> None:
        """Report it: it is all that this call has used."""
        with self._lock:
            self._running.pop(call, None)
            self._settled += figures
            self._report()

    def _report(self) -> None:
        total = sum(self._running.values(), start=self._settled)
        self._use.report(
            input_tokens=total.input_tokens,
            output_tokens=total.output_tokens,
            cache_read_tokens=total.cache_read_tokens,
            cache_write_tokens=total.cache_write_tokens,
        )


class ProcessBilling(ProcessReports, Billing):
    """Reports all calls of a credit process together: one for each process.

    They are billed at the price of the model that was authorized.
    """

    def __init__(self, use: CreditProcess) -> None:
        refuse(use, BlockingCreditProcess, "zaaz_client.adapters.blocking.ProcessBilling")
        super().__init__(use)

    async def settle(self, call: object, finished: FinishedCall) -> None:
        """Report it. The end of the process bills it."""
        self.add(call, finished.figures)
