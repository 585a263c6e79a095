"""Watches calls to their end, however that comes, and has each billed once."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from typing import Any, Final

from zaaz_client.adapters.billing import Billing
from zaaz_client.adapters.figures import (
    FinishedCall,
    UnknownUsage,
    UnknownUsageHandler,
    UsageFigures,
)
from zaaz_client.adapters.readers import Reader
from zaaz_client.winding_up import outlast, see_through

GRACE_SECONDS: Final = 5.0
"""How long a call that is broken off may take to be billed."""
MAX_HELD_EVENTS: Final = 8
"""So many events are held back for the usage that is to follow them."""

_log = logging.getLogger("zaaz_client")


class Meter:
    """The calls of one block. `end` bills those that are still open as broken off.

    `model_name` makes a model's `value` in the platform of the vendor's name.
    """

    def __init__(
        self,
        vendor: str,
        billing: Billing,
        model_name: Callable[[str], str],
        on_unknown_usage: UnknownUsageHandler | None,
    ) -> None:
        self.vendor = vendor
        self.billing = billing
        self.model_name = model_name
        self.on_unknown_usage = on_unknown_usage
        self.open: set[CallMeter] = set()
        self._ended = False

    def begin(self, reader: Reader, request: Mapping[str, Any]) -> "CallMeter":
        """A call begins. RuntimeError after `end`: nobody would bill it."""
        if self._ended:
            raise RuntimeError("the metered block has ended: make this call inside of it")
        call = CallMeter(self, reader, request)
        self.open.add(call)
        return call

    async def end(self) -> None:
        """Bill what is still open, and close it: later events would not be billed."""
        self._ended = True
        calls = asyncio.gather(*(call.break_off() for call in self.open))
        await outlast(_awaited(calls), GRACE_SECONDS)


class CallMeter:
    """One call, until it is billed. `finish` and `break_off` do so, the first of them for good."""

    def __init__(self, meter: Meter, reader: Reader, request: Mapping[str, Any]) -> None:
        self.reader = reader
        self._meter = meter
        self._request = request
        self._close: Callable[[], Awaitable[object]] | None = None
        self._is_readable = True

    def answer(self, answer: Any) -> None:
        """The whole answer has come."""
        self._attempt(self.reader.answer, answer)

    def events(
        self, stream: AsyncIterable[Any], close: Callable[[], Awaitable[object]]
    ) -> AsyncGenerator[Any, None]:
        """The events of the call's stream, watched. Whatever ends them ends the call."""
        self._close = close
        return self._watched(stream)

    async def _watched(self, stream: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
        try:
            async with contextlib.aclosing(self._ahead(stream)) as events:
                async for event in events:
                    yield event
        except BaseException as error:
            await self.break_off(error)
            raise
        await self.finish()

    async def finish(self) -> None:
        """The call has come to its end. Raises ZaazError where it cannot be billed."""
        if (finished := self._conclude()) is not None:
            await outlast(self._settle(finished), GRACE_SECONDS)

    async def break_off(self, error: BaseException | None = None) -> None:
        """The call came to no end: bill what it has used. A failure is logged, and noted."""
        if (finished := self._conclude()) is not None:
            settling = asyncio.create_task(self._settle(finished))
            await see_through(settling, GRACE_SECONDS)
            failure = _failure(settling)
            if failure is not None and error is not None:
                error.add_note(f"{finished} was not billed: {failure!r}")
        if self._close is not None:
            close, self._close = self._close, None
            try:
                await close()
            except Exception:  # noqa: BLE001 - it has been billed, and others are to be
                _log.warning("the connection of a call could not be closed", exc_info=True)

    async def close(self) -> None:
        """As `break_off`, from where nothing has failed: a cancellation is raised after it."""
        await outlast(self.break_off(), GRACE_SECONDS)

    async def _ahead(self, stream: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
        """The events, of which the last may wait for the usage behind them."""
        held: deque[Any] = deque()
        failure: Exception | None = None
        try:
            async for event in stream:
                self._read(event)
                if not self.reader.hides(event):
                    held.append(event)
                if self.reader.waits and len(held) < MAX_HELD_EVENTS:
                    continue
                while held:
                    yield held.popleft()
        except Exception as error:  # noqa: BLE001 - raised when what came before it was told
            failure = error
        while held:
            yield held.popleft()
        if failure is not None:
            raise failure

    def _read(self, event: Any) -> None:
        before = self.reader.figures
        self._attempt(self.reader.event, event)
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

    async def _settle(self, finished: FinishedCall) -> None:
        try:
            await self._meter.billing.settle(self, finished)
        except BaseException as error:
            _log.error("not billed: %s: %r", finished, error)
            raise


async def _awaited(work: "asyncio.Future[Any]") -> None:
    await work


def _as_known(known: UsageFigures | None) -> str:
    return "not billed" if known is None else "billed as far as it is known"


def _failure(task: "asyncio.Task[None]") -> BaseException | None:
    if not task.done() or task.cancelled():
        return TimeoutError(f"no end in {GRACE_SECONDS:g} s")
    return task.exception()
