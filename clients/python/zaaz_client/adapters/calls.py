"""The calls of a metered block and what is to be billed for them, however they are waited for."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from threading import Lock
from typing import Any, Final

from zaaz_client.adapters.billing import AnyBilling
from zaaz_client.adapters.figures import (
    FinishedCall,
    UnknownUsage,
    UnknownUsageHandler,
    UsageFigures,
)
from zaaz_client.adapters.readers import Reader

MAX_HELD_EVENTS: Final = 8
"""So many events are held back for the usage that is to follow them."""

_log = logging.getLogger("zaaz_client")


class AnyMeter:
    """The calls of one block.

    `model_name` makes a model's `value` in the platform of the vendor's name.
    """

    def __init__(
        self,
        vendor: str,
        billing: AnyBilling,
        model_name: Callable[[str], str],
        on_unknown_usage: UnknownUsageHandler | None,
    ) -> None:
        self.vendor = vendor
        self.billing = billing
        self.model_name = model_name
        self.on_unknown_usage = on_unknown_usage
        self.open: set[Any] = set()
        """Calls that are not billed yet. Threads may share it."""
        self._ended = False

    def check(self) -> None:
        """RuntimeError after the block's end: nobody would bill a call."""
        if self._ended:
            raise RuntimeError("the metered block has ended: make this call inside of it")


class AnyCall:
    """One call, until it is billed."""

    def __init__(self, meter: AnyMeter, reader: Reader, request: Mapping[str, Any]) -> None:
        self.reader = reader
        self._meter = meter
        self._request = request
        self._is_readable = True
        self._lock = Lock()  # what has been settled is not told as going on by another thread

    def answer(self, answer: Any) -> None:
        """The whole answer has come."""
        self._attempt(self.reader.answer, answer)

    def _read(self, event: Any) -> None:
        before = self.reader.figures
        self._attempt(self.reader.event, event)
        with self._lock:
            if self in self._meter.open and self.reader.figures not in (None, before):
                self._meter.billing.so_far(self, self.reader.figures or UsageFigures())

    def _attempt(self, read: Callable[[Any], None], told: Any) -> None:
        """Read it. The caller's own call does not fail for what nobody here understands."""
        try:
            read(told)
        except Exception:  # noqa: BLE001 - whatever a vendor's server may come to send
            if self._is_readable:
                _log.exception("an answer of %s cannot be read to meter it", self._meter.vendor)
            self._is_readable = False

    def _conclude(self) -> FinishedCall | None:
        """What is to be billed; None for nothing, and when it was asked before."""
        with self._lock:
            if self not in self._meter.open:
                return None
            self._meter.open.remove(self)
        reader = self.reader
        if not reader.began:
            return None  # it has failed before the vendor said anything
        figures = reader.figures if reader.complete else self._unknown()
        if figures is None:
            return None
        return FinishedCall(
            vendor=self._meter.vendor,
            ai_model=self._ai_model,
            response_id=reader.response_id,
            figures=figures,
            complete=reader.complete,
        )

    @property
    def _ai_model(self) -> str:
        asked = self._request.get("model") or self.reader.model
        return self._meter.model_name(str(asked))

    def _unknown(self) -> UsageFigures | None:
        known = self.reader.figures
        unknown = UnknownUsage(
            vendor=self._meter.vendor,
            ai_model=self._ai_model,
            response_id=self.reader.response_id,
            request=self._request,
            text=self.reader.text,
            known=known or UsageFigures(),
        )
        if self._meter.on_unknown_usage is None:
            _log.warning("%s, for there is no on_unknown_usage: %s", _as_known(known), unknown)
            return known
        try:
            return self._meter.on_unknown_usage(unknown) or known
        except Exception:  # noqa: BLE001 - the caller's function must not hide the call's own end
            _log.exception("%s, for on_unknown_usage failed: %s", _as_known(known), unknown)
            return known


class HeldEvents:
    """Events of a stream that are on their way to its reader; the last may wait for the usage."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._held: deque[Any] = deque()

    def add(self, event: Any) -> Iterator[Any]:
        """Those that are to be shown once this one has been read."""
        if not self._reader.hides(event):
            self._held.append(event)
        if not self._reader.waits or len(self._held) >= MAX_HELD_EVENTS:
            yield from self.rest()

    def rest(self) -> Iterator[Any]:
        """All of them."""
        while self._held:
            yield self._held.popleft()


def _as_known(known: UsageFigures | None) -> str:
    return "not billed" if known is None else "billed as far as it is known"
