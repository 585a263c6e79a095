"""Every unary call ends: by the caller's deadline or by the server's own."""

import asyncio
from typing import Final

from server.kernel.errors import DomainError, Reason
from server.rpc.call import Call, Step, current_task

UNARY_SECONDS: Final = 30.0
"""For callers who set no deadline. Those who did are cancelled by grpc when theirs passes."""

SWEEPS: Final = 20
"""How often within its limit a call is looked at: it may run over by a part in so many."""


class Deadlines:
    """Ends calls that run past one limit.

    All have the same limit, so they come due in the order of their start, and
    one timer for the first of them does for all. A timer for each cost a call
    ten times as much.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._due: dict[asyncio.Task[object], float] = {}
        self._expired: set[asyncio.Task[object]] = set()
        self._sweeping = False

    def bounded(self, inner: Step) -> Step:
        """`inner`, ended with DEADLINE_EXCEEDED when ours runs out and the caller set none."""

        async def run(call: Call) -> bytes | None:
            if call.context.time_remaining() is not None:
                return await inner(call)
            task = current_task()
            cancelling = task.cancelling()
            self._start(task)
            try:
                return await inner(call)
            except asyncio.CancelledError:
                if task not in self._expired or task.uncancel() > cancelling:
                    raise
            finally:
                self._due.pop(task, None)
                self._expired.discard(task)
            raise self._exceeded()

        return run

    def _start(self, task: "asyncio.Task[object]") -> None:
        loop = asyncio.get_running_loop()
        self._due[task] = loop.time() + self.seconds
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(self.seconds / SWEEPS, self._sweep)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task, due in list(self._due.items()):
            if due > now:
                break
            del self._due[task]
            self._expired.add(task)
            task.cancel()
        self._sweeping = bool(self._due)
        if self._sweeping:
            loop.call_later(self.seconds / SWEEPS, self._sweep)

    def _exceeded(self) -> DomainError:
        return DomainError(
            Reason.DEADLINE_EXCEEDED,
            f"the server's own limit of {self.seconds:g} s ran out: retry with the same request_id",
            {"limit_seconds": f"{self.seconds:g}"},
        )
