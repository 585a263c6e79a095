"""Watches calls of synchronous code to their end, however that comes, and has each billed once."""

import logging
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

from zaaz_client.adapters.blocking.billing import Billing
from zaaz_client.adapters.calls import AnyCall, AnyMeter, HeldEvents
from zaaz_client.adapters.figures import FinishedCall
from zaaz_client.adapters.readers import Reader

_log = logging.getLogger("zaaz_client")


class Meter(AnyMeter):
    """The calls of one block, of any thread. `end` bills those still open as broken off."""

    billing: Billing

    def begin(self, reader: Reader, request: Mapping[str, Any]) -> "CallMeter":
        """A call begins. RuntimeError after `end`: nobody would bill it."""
        self.check()
        self._break_off([call for call in list(self.open) if call.dropped])
        call = CallMeter(self, reader, request)
        self.open.add(call)
        return call

    def end(self) -> None:
        """Bill what is still open, and close it: later events would not be billed."""
        self._ended = True
        self._break_off(list(self.open))

    def _break_off(self, calls: list["CallMeter"]) -> None:
        """All of them, also when a signal comes between, which is raised after the last."""
        interruption: BaseException | None = None
        for call in calls:
            try:
                call.break_off()
            except BaseException as error:  # noqa: BLE001 - raised below
                interruption = error
        if interruption is not None:
            raise interruption


class CallMeter(AnyCall):
    """One call, until it is billed. `finish` and `break_off` do so, the first of them for good."""

    def __init__(self, meter: Meter, reader: Reader, request: Mapping[str, Any]) -> None:
        super().__init__(meter, reader, request)
        self._billing = meter.billing
        self._close: Callable[[], object] | None = None
        self.dropped = False
        """Its stream is gone, without a word. The meter bills it with the next call, or its end."""

    def events(
        self, stream: Iterable[Any], close: Callable[[], object]
    ) -> Generator[Any, None, None]:
        """The events of the call's stream, watched. Whatever ends them ends the call."""
        self._close = close
        return self._watched(stream)

    def _watched(self, stream: Iterable[Any]) -> Generator[Any, None, None]:
        try:
            yield from self._ahead(stream)
        except GeneratorExit:
            # This may be the garbage collector, in any thread and in the middle of anything:
            # it is not to wait. Nor is the vendor's stream left to it, which is a cycle: collected
            # while httpcore holds its pool's lock, it would wait for that very lock. We hold it
            # until it is closed with the next call, or the end.
            self.dropped = True
            raise
        except BaseException as error:
            self.break_off(error)
            raise
        self.finish()

    def finish(self) -> None:
        """The call has come to its end. Raises ZaazError where it cannot be billed."""
        if (finished := self._conclude()) is not None:
            self._settle(finished)

    def break_off(self, error: BaseException | None = None) -> None:
        """The call came to no end: bill what it has used. A failure is logged, and noted."""
        try:
            if (finished := self._conclude()) is not None:
                self._settle_after(error, finished)
        finally:
            self._shut()

    def _settle_after(self, error: BaseException | None, finished: FinishedCall) -> None:
        try:
            self._settle(finished)
        except Exception as failure:  # noqa: BLE001 - it is logged, and the caller's comes first
            if error is not None:
                error.add_note(f"{finished} was not billed: {failure!r}")

    def _shut(self) -> None:
        close, self._close = self._close, None
        if close is not None:
            try:
                close()
            except Exception:  # noqa: BLE001 - it has been billed, and others are to be
                _log.warning("the connection of a call could not be closed", exc_info=True)

    def _ahead(self, stream: Iterable[Any]) -> Generator[Any, None, None]:
        """The events, of which the last may wait for the usage behind them."""
        held = HeldEvents(self.reader)
        failure: Exception | None = None
        try:
            for event in stream:
                self._read(event)
                yield from held.add(event)
        except Exception as error:  # noqa: BLE001 - raised when what came before it was told
            failure = error
        yield from held.rest()
        if failure is not None:
            raise failure

    def _settle(self, finished: FinishedCall) -> None:
        try:
            self._billing.settle(self, finished)
        except BaseException as error:
            _log.error("not billed: %s: %r", finished, error)
            raise
