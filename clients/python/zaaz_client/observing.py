"""What somebody who watches calls is told: the hook that `zaaz_client.otel` fills."""

from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import grpc

from zaaz_client.status import reason_in
from zaaz_client.usage_results import UsageCounters

_T = TypeVar("_T")


class Counted(Protocol):
    """A usage stream, as far as it is watched."""

    @property
    def counters(self) -> UsageCounters:
        """What became of its events so far."""
        ...


class CallWatch(Protocol):
    """One call under way."""

    @property
    def metadata(self) -> Sequence[tuple[str, str]]:
        """What the call carries for whoever serves it."""
        ...

    def ended(self, code: grpc.StatusCode, reason: str) -> None:
        """It is over. `reason`: of the contract; empty where there is none."""
        ...


class Telemetry(Protocol):
    """Is told of every call and of every usage stream. Called in the event loop: be quick."""

    def started(self, target: str, method: str) -> CallWatch:
        """A call begins; `method` as in "zaaz.wallet.v1.WalletService/GetWallet"."""
        ...

    def opened(self, stream: Counted) -> None:
        """A usage stream was made; its `counters` tell what becomes of its events."""
        ...


def tell_the_end(watch: CallWatch, call: Any) -> None:
    """Tell of a call that is done."""
    code: grpc.StatusCode = _at_once(call.code())
    reason = "" if code is grpc.StatusCode.OK else reason_in(_at_once(call.trailing_metadata()))
    watch.ended(code, reason)


def _at_once(step: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine of grpc.aio's that has nothing left to wait for."""
    try:
        step.send(None)
    except StopIteration as finished:
        result: _T = finished.value
        return result
    step.close()
    raise RuntimeError("the call is not done")
