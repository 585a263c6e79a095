"""Watches calls to their end, however that comes, and has each billed once."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from typing import Any, Final

from zaaz_client.adapters.billing import Billing
from zaaz_client.adapters.calls import AnyCall, AnyMeter, HeldEvents
from zaaz_client.adapters.figures import FinishedCall
from zaaz_client.adapters.readers import Reader
from zaaz_client.winding_up import outlast, see_through

GRACE_SECONDS: Final = 5.0
"""How long a call that is broken off may take to be billed."""

_log = logging.getLogger("zaaz_client")


class Meter(AnyMeter):
    """The calls of one block. `end` bills those that are still open as broken off."""

    billing: Billing

    def begin(self, reader: Reader, request: Mapping[str, Any]) -> "CallMeter":
        """A call begins. RuntimeError after `end`: nobody would bill it."""
        self.check()
        call = CallMeter(self, reader, request)
        self.open.add(call)
        return call

    async def end(self) -> None:
        """Bill what is still open, and close it: later events would not be billed."""
        self._ended = True
        calls = asyncio.gather(*(call.break_off() for call in self.open))
        await outlast(_awaited(calls), GRACE_SECONDS)


class CallMeter(AnyCall):
    """One call, until it is billed. `finish` and `break_off` do so, the first of them for good."""

    def __init__(self, meter: Meter, reader: Reader, request: Mapping[str, Any]) -> None:
        super().__init__(meter, reader, request)
        self._billing = meter.billing
        self._close: Callable[[], Awaitable[object]] | None = None

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
        held = HeldEvents(self.reader)
        failure: Exception | None = None
        try:
            async for event in stream:
                self._read(event)
                for shown in held.add(event):
                    yield shown
        except Exception as error:  # noqa: BLE001 - raised when what came before it was told
            failure = error
        for shown in held.rest():
            yield shown
        if failure is not None:
            raise failure

    async def _settle(self, finished: FinishedCall) -> None:
        try:
            await self._billing.settle(self, finished)
        except BaseException as error:
            _log.error("not billed: %s: %r", finished, error)
            raise


async def _awaited(work: "asyncio.Future[Any]") -> None:
    await work


def _failure(task: "asyncio.Task[None]") -> BaseException | None:
    if not task.done() or task.cancelled():
        return TimeoutError(f"no end in {GRACE_SECONDS:g} s")
    return task.exception()
