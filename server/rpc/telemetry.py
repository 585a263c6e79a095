"""What an operator sees of every call: one log event and metrics.

Log events carry FIELDS and nothing else: no payloads, no metadata, no keys.
Calls that have ended are noted, and counted and logged many at once: done call
by call it cost more than all the rest of the edge.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import grpc

from server.kernel.errors import DomainError
from server.rpc.address import Address
from server.rpc.call import Call, Metadata, Method, Step
from server.rpc.errors import CODES
from server.rpc.logs import EventLog
from server.rpc.metrics import MethodMetrics, Metrics

UNKNOWN_METHOD: Final = "/unknown/unknown"
"""One name for every method that is not served: callers must not make series."""

FIELDS: Final = frozenset(
    {
        "method",
        "code",
        "reason",
        "duration_ms",
        "client_id",
        "request_id",
        "messages_in",
        "messages_out",
        "error_id",
    }
)
"""What a log event of an RPC may carry beside time, level, logger and event."""

FLUSH_SECONDS: Final = 0.1
"""So long metrics and log lag behind the calls."""

MAX_WAITING_CALLS: Final = 500
"""More calls than these do not wait."""

LOGGER: Final = "server.rpc"

_DEADLINE_TOLERANCE_SECONDS = 0.05
"""The caller's clock may run out, and its cancellation arrive, a moment before ours."""

_REQUEST_ID_KEY = "x-request-id"
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")


class Ended(NamedTuple):
    """A call that has ended. Not the call itself, which has its request, nor its error, whose
    traceback has the call: neither may wait.
    """

    time_seconds: float
    method: Method
    metrics: MethodMetrics
    code: grpc.StatusCode
    seconds: float
    client_id: str | None
    messages: tuple[int, int] | None
    metadata: Metadata
    reason: str | None
    error_id: str | None


class Telemetry:
    """Counts and logs calls. Without a log it only counts."""

    def __init__(self, log: EventLog | None) -> None:
        self.metrics = Metrics()
        self._log = log
        self._waiting: list[Ended] = []
        self._flushing = False

    def ended(self, ended: Ended) -> None:
        """Note a call that has ended; called within the server's event loop."""
        self._waiting.append(ended)
        if len(self._waiting) >= MAX_WAITING_CALLS:
            self.flush()
        elif not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_later)

    def serve(self, address: Address) -> tuple[Address, Callable[[], None]]:
        """Serve the metrics over HTTP; the bound address and what stops it, or CannotServeError."""
        return self.metrics.serve(address)

    def flush(self) -> None:
        """Count and log what has been noted."""
        waiting, self._waiting = self._waiting, []
        for ended in waiting:
            ended.metrics.ended(ended.code.name, ended.seconds, ended.messages)
        if self._log is not None:
            for ended in waiting:
                level = logging.ERROR if ended.error_id is not None else logging.INFO
                self._log.event(ended.time_seconds, level, LOGGER, "rpc", _fields(ended))

    def _flush_later(self) -> None:
        self._flushing = False
        self.flush()


def observing(telemetry: Telemetry, method: Method, inner: Step) -> Step:
    """`inner`, counted, timed and logged once it has ended."""
    metrics = MethodMetrics(telemetry.metrics, method)
    is_unary = method.is_unary
    started, open_streams = metrics.started, metrics.open_streams

    def end(call: Call, code: grpc.StatusCode, error: DomainError | None = None) -> None:
        if not is_unary:
            open_streams.dec()
        ended = Ended(
            time.time(),
            method,
            metrics,
            code,
            time.perf_counter() - call.started,
            call.principal.client_id if call.principal else None,
            None if is_unary else (call.messages_in, call.messages_out),
            call.metadata,
            error.reason.value if error else None,
            error.metadata.get("error_id") if error else None,
        )
        telemetry.ended(ended)

    async def observe(call: Call) -> bytes | None:
        started.inc()
        if not is_unary:
            open_streams.inc()
        try:
            response = await inner(call)
        except DomainError as error:
            end(call, CODES[error.reason], error)
            raise
        except asyncio.CancelledError:
            end(call, _cancelled_code(call))
            raise
        except grpc.aio.AbortError:
            end(call, _aborted_code(call))
            raise
        end(call, grpc.StatusCode.OK)
        return response

    return observe


def _cancelled_code(call: Call) -> grpc.StatusCode:
    remaining = call.context.time_remaining()
    if remaining is not None and remaining <= _DEADLINE_TOLERANCE_SECONDS:
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return grpc.StatusCode.CANCELLED


def _aborted_code(call: Call) -> grpc.StatusCode:
    """What a handler of somebody else's (health) told grpc itself."""
    return call.context.code() or grpc.StatusCode.UNKNOWN


def _fields(ended: Ended) -> dict[str, object]:
    fields: dict[str, object] = {
        "method": ended.method.name,
        "code": ended.code.name,
        "duration_ms": round(ended.seconds * 1000, 3),
    }
    if ended.reason is not None:
        fields["reason"] = ended.reason
    if ended.client_id is not None:
        fields["client_id"] = ended.client_id
    if ended.messages is not None:
        fields["messages_in"], fields["messages_out"] = ended.messages
    request_id = _request_id(ended.metadata)
    if request_id is not None:
        fields["request_id"] = request_id
    if ended.error_id is not None:
        fields["error_id"] = ended.error_id
    return fields


def _request_id(metadata: Metadata) -> str | None:
    for key, value in metadata:
        if key == _REQUEST_ID_KEY and isinstance(value, str):
            return value if _SANE_REQUEST_ID.fullmatch(value) else None
    return None
