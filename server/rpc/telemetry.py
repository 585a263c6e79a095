"""What an operator sees of every call: one log event and Prometheus metrics.

Metrics bear the names that gRPC dashboards know (grpc-ecosystem's), so an
existing dashboard works. Log events carry FIELDS and nothing else: no
payloads, no metadata, no keys.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from typing import Any, Final

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from server.kernel.errors import DomainError, Reason
from server.rpc.address import Address
from server.rpc.call import Call, Method, Step
from server.rpc.errors import CODES

UNKNOWN_METHOD: Final = "/unknown/unknown"
"""One label for every method that is not served: callers must not make series."""

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

DURATION_BUCKETS_SECONDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
)  # fmt: skip

_REQUEST_ID_KEY = "x-request-id"
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")
_LABELS = ("grpc_type", "grpc_service", "grpc_method")

_log = logging.getLogger("server.rpc")


class Telemetry:
    """The metrics of one server, in a registry of their own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.started = self._counter("grpc_server_started", "RPCs started.")
        self.handled = self._counter("grpc_server_handled", "RPCs ended, by code.", "grpc_code")
        self.received = self._counter("grpc_server_msg_received", "Messages of streams, in.")
        self.sent = self._counter("grpc_server_msg_sent", "Messages of streams, out.")
        self.duration = Histogram(
            "grpc_server_handling_seconds",
            "How long RPCs took; streams from open to end.",
            _LABELS,
            registry=self.registry,
            buckets=DURATION_BUCKETS_SECONDS,
        )
        self.open_streams = Gauge(
            "grpc_server_open_streams", "Streams open now.", _LABELS, registry=self.registry
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, (*_LABELS, *labels), registry=self.registry)

    def serve(self, address: Address) -> tuple[Address, Callable[[], None]]:
        """Serve `/metrics` at `address`; the bound address, and what stops it."""
        server, thread = start_http_server(address.port, address.host, registry=self.registry)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return Address(address.host, server.server_port), stop


class _MethodMetrics:
    """One method's series, looked up once."""

    def __init__(self, telemetry: Telemetry, method: Method) -> None:
        service, _, name = method.name.lstrip("/").rpartition("/")
        labels = (_kind(method), service, name)
        self._labels = labels
        self._handled = telemetry.handled
        self._by_code: dict[str, Any] = {}
        self.started = telemetry.started.labels(*labels)
        self.received = telemetry.received.labels(*labels)
        self.sent = telemetry.sent.labels(*labels)
        self.duration = telemetry.duration.labels(*labels)
        self.open_streams = telemetry.open_streams.labels(*labels)

    def ended(self, code: str, seconds: float) -> None:
        handled = self._by_code.get(code)
        if handled is None:
            handled = self._by_code[code] = self._handled.labels(*self._labels, code)
        handled.inc()
        self.duration.observe(seconds)


def observing(telemetry: Telemetry, method: Method, inner: Step) -> Step:
    """`inner`, counted, timed and logged once it has ended."""
    metrics = _MethodMetrics(telemetry, method)
    observe = _unary(metrics, inner) if method.is_unary else _stream(metrics, inner)

    async def run(call: Call) -> bytes | None:
        metrics.started.inc()
        try:
            response = await observe(call)
        except DomainError as error:
            _ended(metrics, call, CODES[error.reason], error)
            raise
        except asyncio.CancelledError:
            _ended(metrics, call, _cancelled_code(call))
            raise
        except grpc.aio.AbortError:
            _ended(metrics, call, grpc.StatusCode.UNKNOWN)
            raise
        _ended(metrics, call, grpc.StatusCode.OK)
        return response

    return run


def _unary(_: _MethodMetrics, inner: Step) -> Step:
    return inner


def _stream(metrics: _MethodMetrics, inner: Step) -> Step:
    async def run(call: Call) -> bytes | None:
        metrics.open_streams.inc()
        try:
            return await inner(call)
        finally:
            metrics.open_streams.dec()
            metrics.received.inc(call.messages_in)
            metrics.sent.inc(call.messages_out)

    return run


def _ended(
    metrics: _MethodMetrics, call: Call, code: grpc.StatusCode, error: DomainError | None = None
) -> None:
    seconds = time.perf_counter() - call.started
    metrics.ended(code.name, seconds)
    level = logging.ERROR if error and error.reason is Reason.INTERNAL else logging.INFO
    if _log.isEnabledFor(level):
        _log.log(level, "rpc", extra={"fields": _fields(call, code, seconds, error)})


def _fields(
    call: Call, code: grpc.StatusCode, seconds: float, error: DomainError | None
) -> dict[str, object]:
    fields: dict[str, object] = {
        "method": call.method.name,
        "code": code.name,
        "duration_ms": round(seconds * 1000, 3),
    }
    if call.principal is not None:
        fields["client_id"] = call.principal.client_id
    if not call.method.is_unary:
        fields["messages_in"] = call.messages_in
        fields["messages_out"] = call.messages_out
    request_id = _request_id(call)
    if request_id:
        fields["request_id"] = request_id
    if error is not None:
        fields["reason"] = error.reason.value
        if "error_id" in error.metadata:
            fields["error_id"] = error.metadata["error_id"]
    return fields


def _request_id(call: Call) -> str | None:
    for key, value in call.context.invocation_metadata() or ():
        if key == _REQUEST_ID_KEY and isinstance(value, str):
            return value if _SANE_REQUEST_ID.fullmatch(value) else None
    return None


def _cancelled_code(call: Call) -> grpc.StatusCode:
    if call.context.time_remaining() == 0:
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return grpc.StatusCode.CANCELLED


def _kind(method: Method) -> str:
    if method.is_unary:
        return "unary"
    if not method.request_streaming:
        return "server_stream"
    return "bidi_stream" if method.response_streaming else "client_stream"
