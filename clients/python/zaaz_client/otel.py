"""Traces and metrics of the client's calls, by OpenTelemetry.

    ZaazClient(target, api_key, telemetry=OpenTelemetry())

Needs the extra `otel` (opentelemetry-api). Names and attributes are those of the
semantic conventions for RPC: a CLIENT span for each call, whose context goes along
as `traceparent`, and the histogram rpc.client.call.duration. A stream is one call,
from its opening to its end. Beside them:

- zaaz.client.usage_stream.events, a counter of what became of events, by
  zaaz.event.state: sent, acknowledged, and each other field of UsageCounters that
  counts events;
- zaaz.client.usage_stream.reopened, a counter of streams opened again;
- zaaz.client.usage_stream.spool_full, a counter of how often spools began to refuse events.
"""

import time
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Final

import grpc
from opentelemetry import metrics, propagate, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from zaaz_client.observing import Counted
from zaaz_client.usage_results import UsageCounters

NAME: Final = "zaaz_client"
DURATION_BUCKETS_SECONDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10
)  # fmt: skip
"""Those that the conventions give."""
MAX_TARGETS: Final = 100
"""Of which the address is kept."""

_REOPENED: Final = "reopened"
_SPOOL_FULL: Final = "spool_full"
_NO_EVENTS: Final = frozenset({_REOPENED, _SPOOL_FULL})
"""Counters of something else than events."""
_Attributes = dict[str, str | int]


class OpenTelemetry:
    """One for a process: give it to each of its clients.

    None: the providers that are set globally, when this is made.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(NAME, tracer_provider=tracer_provider)
        meter = metrics.get_meter(NAME, meter_provider=meter_provider)
        self._duration = meter.create_histogram(
            "rpc.client.call.duration",
            unit="s",
            description="How long calls took, as the client saw it.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS_SECONDS,
        )
        self._addresses: dict[str, _Attributes] = {}
        self._streams = _Streams()
        meter.create_observable_counter(
            "zaaz.client.usage_stream.events",
            [self._streams.events],
            unit="{event}",
            description="What became of usage events.",
        )
        meter.create_observable_counter(
            "zaaz.client.usage_stream.reopened",
            [self._streams.reopened],
            unit="{stream}",
            description="Usage streams that were lost and opened again.",
        )
        meter.create_observable_counter(
            "zaaz.client.usage_stream.spool_full",
            [self._streams.spool_full],
            unit="{time}",
            description="How often spools, or their disks, began to refuse events.",
        )

    def started(self, target: str, method: str) -> "_TracedCall":
        """A call begins."""
        attributes: _Attributes = {"rpc.system.name": "grpc", "rpc.method": method}
        attributes |= self._address(target)
        span = self._tracer.start_span(method, kind=SpanKind.CLIENT, attributes=attributes)
        return _TracedCall(span, self._duration, attributes)

    def opened(self, stream: Counted) -> None:
        """A usage stream was made."""
        self._streams.add(stream)

    def _address(self, target: str) -> _Attributes:
        if target not in self._addresses:
            if len(self._addresses) >= MAX_TARGETS:
                return _address(target)
            self._addresses[target] = _address(target)
        return self._addresses[target]


class _TracedCall:
    """A span, and the call's place in the histogram."""

    def __init__(self, span: Span, duration: metrics.Histogram, attributes: _Attributes) -> None:
        self._span = span
        self._duration = duration
        self._attributes = attributes
        self._began = time.perf_counter()

    @property
    def metadata(self) -> Sequence[tuple[str, str]]:
        """`traceparent`, and what else the process propagates."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(self._span))
        return [(key.lower(), value) for key, value in carrier.items()]

    def ended(self, code: grpc.StatusCode, reason: str) -> None:
        """The call is over."""
        outcome: _Attributes = {"rpc.response.status_code": code.name}
        if code is not grpc.StatusCode.OK:
            outcome["error.type"] = code.name
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.set_attributes(outcome)
        if reason:
            self._span.set_attribute("zaaz.error.reason", reason)
        self._span.end()
        # In the context of the span, so that a reader may lead from one to the other.
        self._duration.record(
            time.perf_counter() - self._began,
            {**self._attributes, **outcome},
            trace.set_span_in_context(self._span),
        )


class _Streams:
    """The counters of all usage streams together, of those that are gone too."""

    def __init__(self) -> None:
        self._alive: dict[int, UsageCounters] = {}
        self._gone: Counter[str] = Counter()

    def add(self, stream: Counted) -> None:
        """Count with it from now on."""
        key = id(stream)
        self._alive[key] = stream.counters
        weakref.finalize(stream, self._let_go, key)

    def events(self, _: CallbackOptions) -> Iterable[Observation]:
        """By what became of them."""
        for name, count in self._total().items():
            if name not in _NO_EVENTS:
                yield Observation(count, {"zaaz.event.state": name})

    def reopened(self, _: CallbackOptions) -> Iterable[Observation]:
        """How often."""
        yield Observation(self._total()[_REOPENED])

    def spool_full(self, _: CallbackOptions) -> Iterable[Observation]:
        """How often."""
        yield Observation(self._total()[_SPOOL_FULL])

    def _let_go(self, key: int) -> None:
        self._gone.update(_as_mapping(self._alive.pop(key)))

    def _total(self) -> Counter[str]:
        # Streams come and go in other threads than the one that reads.
        total = Counter(self._gone)
        for counters in list(self._alive.values()):
            total.update(_as_mapping(counters))
        return total


def _as_mapping(counters: UsageCounters) -> Mapping[str, int]:
    return {field.name: getattr(counters, field.name) for field in fields(counters)}


def _address(target: str) -> _Attributes:
    """As server.address and server.port: without a port where the target names none."""
    name = target
    scheme, colon, rest = target.partition(":")
    if colon and scheme in {"unix", "unix-abstract"}:
        return {"server.address": rest.removeprefix("//")}
    if colon and scheme in {"dns", "ipv4", "ipv6"}:
        name = rest.rpartition("/")[2]
    host, _, port = name.rpartition(":")
    if not host or not port.isdecimal() or "," in name:
        return {"server.address": name.strip("[]")}
    return {"server.address": host.strip("[]"), "server.port": int(port)}
