"""Where the figures of a call of synchronous code go."""

from abc import abstractmethod
from collections.abc import Callable, Mapping

from zaaz_client.adapters.billing import AnyBilling, EventForm, ProcessReports, key_of_response
from zaaz_client.adapters.figures import FinishedCall
from zaaz_client.adapters.kinds import refuse
from zaaz_client.blocking import BlockingCreditProcess, BlockingUsageStream
from zaaz_client.credit_process import CreditProcess
from zaaz_client.usage_stream import UsageStream


class Billing(AnyBilling):
    """What `metered` of this package bills by. Threads may share it."""

    @abstractmethod
    def settle(self, call: object, finished: FinishedCall) -> None:
        """A call is over. Raises ZaazError where that cannot be billed."""


class StreamBilling(Billing):
    """Bills each call as a UsageEvent, as the StreamBilling for event loops does."""

    def __init__(
        self,
        stream: BlockingUsageStream,
        user_id: str,
        *,
        usage_key: Callable[[FinishedCall], str] = key_of_response,
        feature_endpoint: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> None:
        refuse(stream, UsageStream, "zaaz_client.adapters.StreamBilling")
        self._stream = stream
        self._user_id = user_id
        self._form = EventForm(
            usage_key=usage_key, feature_endpoint=feature_endpoint, labels=dict(labels or {})
        )

    def settle(self, call: object, finished: FinishedCall) -> None:
        """Send the event, after a wait where the stream's buffer is full."""
        self._stream.send(self._form.event(self._user_id, finished))


class ProcessBilling(ProcessReports, Billing):
    """Reports all calls of a credit process together: one for each process.

    They are billed at the price of the model that was authorized.
    """

    def __init__(self, use: BlockingCreditProcess) -> None:
        refuse(use, CreditProcess, "zaaz_client.adapters.ProcessBilling")
        super().__init__(use)

    def settle(self, call: object, finished: FinishedCall) -> None:
        """Report it. The end of the process bills it."""
        self.add(call, finished.figures)
