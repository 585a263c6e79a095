"""Prometheus metrics of the calls, under the names that gRPC dashboards know."""

from collections.abc import Callable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from server.rpc.address import Address
from server.rpc.call import Method
from server.rpc.listening import CannotServeError

DURATION_BUCKETS_SECONDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
)  # fmt: skip

_LABELS = ("grpc_type", "grpc_service", "grpc_method")


class Metrics:
    """One server's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
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

    def serve(self, address: Address) -> tuple[Address, Callable[[], None]]:
        """Serve them at `address`; the bound address and what stops it, or CannotServeError."""
        try:
            server, thread = start_http_server(address.port, address.host, registry=self.registry)
        except OSError as error:
            raise CannotServeError(
                f"cannot serve metrics at {address}: {error.strerror}"
            ) from error

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return Address(address.host, server.server_port), stop

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, (*_LABELS, *labels), registry=self.registry)


class MethodMetrics:
    """One method's series, looked up once."""

    def __init__(self, metrics: Metrics, method: Method) -> None:
        service, _, name = method.name.lstrip("/").rpartition("/")
        labels = (_kind(method), service, name)
        self.started = metrics.started.labels(*labels)
        self.open_streams = metrics.open_streams.labels(*labels)
        self._labels = labels
        self._handled = metrics.handled
        self._handled_by_code: dict[str, Any] = {}
        self._received = metrics.received.labels(*labels)
        self._sent = metrics.sent.labels(*labels)
        self._duration = metrics.duration.labels(*labels)

    def ended(self, code: str, seconds: float, messages: tuple[int, int] | None) -> None:
        """Count a call that has ended; `messages` of a stream: in, out."""
        handled = self._handled_by_code.get(code)
        if handled is None:
            handled = self._handled_by_code[code] = self._handled.labels(*self._labels, code)
        handled.inc()
        self._duration.observe(seconds)
        if messages is not None:
            self._received.inc(messages[0])
            self._sent.inc(messages[1])


def _kind(method: Method) -> str:
    if method.is_unary:
        return "unary"
    if not method.request_streaming:
        return "server_stream"
    return "bidi_stream" if method.response_streaming else "client_stream"
