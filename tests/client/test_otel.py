"""Spans and metrics of the client's calls, by the real SDK of OpenTelemetry."""

import gc
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    NumberDataPoint,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from zaaz.wallet.v1.wallet_service_pb2 import GetWalletRequest
from zaaz_client import (
    SpoolFull,
    SpoolSettings,
    Unavailable,
    WalletNotFound,
    WhenFull,
    ZaazClient,
)
from zaaz_client.otel import MAX_TARGETS, OpenTelemetry
from zaaz_client.spool.log import SpoolLog

from tests.ledger.calls import soon
from tests.run.command import free_port
from tests.serving import Served, new_user

from .peer import KEY, Do, Peer, event, script

GET = "zaaz.wallet.v1.WalletService/GetWallet"
INGEST = "zaaz.credits.v1.UsageService/IngestUsage"
WATCH = "zaaz.wallet.v1.WalletService/WatchWallet"


class Watched:
    """A Telemetry, and what it has exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.telemetry = OpenTelemetry(self.tracers, self.meters)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def events(self) -> dict[str, int]:
        """Usage events by what became of them, where any did."""
        points: list[NumberDataPoint] = self.points("zaaz.client.usage_stream.events")
        return {
            str((point.attributes or {})["zaaz.event.state"]): int(point.value)
            for point in points
            if point.value
        }


@pytest.fixture
def watched() -> Watched:
    return Watched()


def address(target: str) -> dict[str, str | int]:
    host, _, port = target.rpartition(":")
    return {"server.address": host, "server.port": int(port)}


async def test_a_call_is_a_span(served: Served, watched: Watched) -> None:
    user_id = await served.new_wallet()
    async with ZaazClient(served.target, served.api_key, telemetry=watched.telemetry) as client:
        with watched.tracers.get_tracer("test").start_as_current_span("above") as above:
            await client.wallets.GetWallet(GetWalletRequest(user_id=user_id))
        with pytest.raises(WalletNotFound):
            await client.wallets.GetWallet(GetWalletRequest(user_id=new_user()))
    good, _, bad = watched.spans
    usual = {"rpc.system.name": "grpc", "rpc.method": GET, **address(served.target)}
    assert (good.name, good.kind, good.status.status_code) == (
        GET,
        SpanKind.CLIENT,
        StatusCode.UNSET,
    )
    assert good.attributes == {**usual, "rpc.response.status_code": "OK"}
    assert good.parent is not None
    assert good.parent.span_id == above.get_span_context().span_id
    assert bad.status.status_code is StatusCode.ERROR
    assert bad.parent is None
    outcome = {"rpc.response.status_code": "NOT_FOUND", "error.type": "NOT_FOUND"}
    assert bad.attributes == {**usual, **outcome, "zaaz.error.reason": "WALLET_NOT_FOUND"}
    points: list[HistogramDataPoint] = watched.points("rpc.client.call.duration")
    counts = {(point.attributes or {})["rpc.response.status_code"]: point for point in points}
    assert {code: point.count for code, point in counts.items()} == {"OK": 1, "NOT_FOUND": 1}
    assert counts["NOT_FOUND"].attributes == {**usual, **outcome}
    assert 0 < counts["OK"].sum < 10
    assert counts["OK"].explicit_bounds[0] == 0.005


async def test_its_context_goes_along(peer: Peer, watched: Watched) -> None:
    async with (
        ZaazClient(peer.target, KEY, telemetry=watched.telemetry) as client,
        client.usage_stream("w") as stream,
    ):
        await stream.send(event(0))
    (span,) = watched.spans
    context = span.get_span_context()
    assert context is not None
    sent = peer.metadata[0]["traceparent"]
    assert sent.startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")
    assert int(sent[-2:], 16) & context.trace_flags.SAMPLED
    assert (span.name, (span.attributes or {})["rpc.method"]) == (INGEST, INGEST)


async def test_a_stream_is_a_call_until_its_end(served: Served, watched: Watched) -> None:
    user_id = await served.new_wallet(1)
    async with (
        ZaazClient(served.target, served.api_key, telemetry=watched.telemetry) as client,
        client.watch_wallet(user_id) as events,
    ):
        await soon(anext(events))
        assert len(watched.spans) == 0
    (span,) = watched.spans
    assert span.name == WATCH
    assert (span.attributes or {})["rpc.response.status_code"] == "CANCELLED"


async def test_nobody_there(watched: Watched) -> None:
    target = f"127.0.0.1:{free_port()}"
    async with ZaazClient(target, KEY, telemetry=watched.telemetry) as client:
        with pytest.raises(Unavailable):
            await client.wallets.GetWallet(GetWalletRequest())
    (span,) = watched.spans
    assert (span.attributes or {})["error.type"] == "UNAVAILABLE"
    assert "zaaz.error.reason" not in (span.attributes or {})


async def test_each_try_is_a_call(served: Served, watched: Watched) -> None:
    user_id = await served.new_wallet()
    keys = iter(["zaaz_wrong", "zaaz_wrong", served.api_key])
    telemetry = watched.telemetry
    async with ZaazClient(served.target, lambda: next(keys), telemetry=telemetry) as client:
        await client.wallets.GetWallet(GetWalletRequest(user_id=user_id))
    codes = [(span.attributes or {})["rpc.response.status_code"] for span in watched.spans]
    assert codes == ["UNAUTHENTICATED", "OK"]


async def test_what_becomes_of_usage_events_is_counted(peer: Peer, watched: Watched) -> None:
    peer.script = script([Do.ACK, Do.DROP_AFTER])
    async with ZaazClient(peer.target, KEY, telemetry=watched.telemetry) as client:
        for writer in ("a", "b"):
            async with client.usage_stream(writer) as stream:
                await stream.send_many(event(index) for index in range(25))
        sent = {"sent": 50, "acknowledged": 50}
        assert sent.items() <= watched.events().items()
        (again,) = watched.points("zaaz.client.usage_stream.reopened")
        assert again.value == 1
        del stream
        gc.collect()
        assert sent.items() <= watched.events().items()  # of those that are gone too
        async with client.usage_stream("a") as stream:
            await stream.send(event(0))
        assert watched.events()["sent"] == 51


async def test_what_a_spool_refuses_is_counted(
    peer: Peer, watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SpoolFull("full")

    monkeypatch.setattr(SpoolLog, "append", full)
    spool = SpoolSettings(directory=tmp_path, when_full=WhenFull.MEMORY)
    async with ZaazClient(peer.target, KEY, telemetry=watched.telemetry) as client:
        async with client.usage_stream("a", spool=spool) as stream:
            await stream.send_many(event(index) for index in range(3))
            await soon(stream.flush())
        assert watched.events() == {"sent": 3, "acknowledged": 3, "billed": 3, "not_durable": 3}
        (often,) = watched.points("zaaz.client.usage_stream.spool_full")
        assert often.value == 1


def test_addresses(watched: Watched) -> None:
    for target, expected in {
        "zaaz.example.com:443": {"server.address": "zaaz.example.com", "server.port": 443},
        "dns:///zaaz.example.com:443": {"server.address": "zaaz.example.com", "server.port": 443},
        "[::1]:50051": {"server.address": "::1", "server.port": 50051},
        "unix:/run/zaaz.sock": {"server.address": "/run/zaaz.sock"},
        "unix:///run/zaaz.sock": {"server.address": "/run/zaaz.sock"},
        "zaaz": {"server.address": "zaaz"},
        "ipv4:10.0.0.1:1,10.0.0.2:2": {"server.address": "10.0.0.1:1,10.0.0.2:2"},
    }.items():
        assert watched.telemetry._address(target) == expected
    for number in range(2 * MAX_TARGETS):
        watched.telemetry._address(f"h{number}:1")
    assert len(watched.telemetry._addresses) == MAX_TARGETS


def test_nothing_is_needed_where_it_is_not_used() -> None:
    code = "import sys, zaaz_client, zaaz_client.blocking; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
