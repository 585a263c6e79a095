"""The README's ways to use the client: lists, files of secrets, FastAPI, threads, OpenTelemetry."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
import uvicorn
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from zaaz_client import ZaazClient

from tests.certificates import Authority
from tests.client.test_readme_runs import example
from tests.ledger.calls import PRICE, soon
from tests.serving import Served, usage_event

from .peer import Peer, event

CREDIT = 1_000_000


async def test_lists(partner: ZaazClient, served: Served) -> None:
    spent_micros = example("spent_micros")["spent_micros"]
    user_id = await served.new_wallet(CREDIT)
    for micros in (1, 20, 300):
        await served.consume(user_id, micros)
    assert await soon(spent_micros(partner, user_id)) == 321


async def test_keys_and_certificates_that_change(tmp_path: Path) -> None:
    from_secrets = example("from_secrets")["from_secrets"]
    authority, clients = Authority(), Authority()
    pair = authority.certify()
    peer = Peer()  # type: ignore[abstract]
    peer.credentials = grpc.ssl_server_credentials(
        [(pair.key, pair.certificate)], clients.roots, require_client_auth=True
    )
    await peer.start()
    (tmp_path / "ca.pem").write_bytes(authority.roots)
    try:
        for key in ("zaaz_one", "zaaz_two"):
            (tmp_path / "zaaz.key").write_text(key)
            clients.certify().write(tmp_path / "tls.crt", tmp_path / "tls.key")
            if key == "zaaz_one":
                client = from_secrets(peer.target, tmp_path)
                await client.__aenter__()
            async with client.usage_stream(key) as stream:
                await stream.send(event(0))
        await client.close()
    finally:
        await peer.stop()
    sent = [metadata["authorization"] for metadata in peer.metadata]
    assert sent == ["Bearer zaaz_one", "Bearer zaaz_two"]


@asynccontextmanager
async def hosted(app: Any) -> AsyncIterator[str]:
    """The application on a real uvicorn, and its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    serving = asyncio.create_task(server._serve([listener]))
    try:
        yield "http://{}:{}".format(*listener.getsockname())
    finally:
        server.should_exit = True
        await soon(serving)


async def test_fastapi(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZAAZ_TARGET", served.target)
    monkeypatch.setenv("ZAAZ_API_KEY", served.api_key)
    app = example("summarize")["app"]
    rich, poor = await served.new_wallet(CREDIT), await served.new_wallet()
    async with hosted(app) as address, httpx2.AsyncClient(base_url=address, timeout=20) as browser:
        answer = await browser.post(f"/users/{rich}/summaries")
        refusal = await browser.post(f"/users/{poor}/summaries")
    spent = CREDIT - (await served.wallet(rich)).credits_micros
    assert (answer.status_code, answer.json()) == (200, {"cost_micros": spent})
    assert spent > 0
    assert refusal.status_code == 402
    assert "INSUFFICIENT_CREDITS" in refusal.json()["detail"]


async def test_synchronous_code(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    bill_batch = example("bill_batch")["bill_batch"]
    user_id = await served.new_wallet(CREDIT)
    events = [usage_event(user_id)]
    work = asyncio.to_thread(bill_batch, served.target, served.api_key, user_id, events)
    assert await soon(work) == CREDIT - PRICE
    assert capsys.readouterr().out == f"{events[0].usage_key} {PRICE}\n"


async def test_opentelemetry(served: Served) -> None:
    traced_balance = example("traced_balance")["traced_balance"]
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)  # as a process does, once
    user_id = await served.new_wallet(7)
    assert await soon(traced_balance(served.target, served.api_key, user_id)) == 7
    (span,) = exporter.get_finished_spans()
    assert span.name == "zaaz.wallet.v1.WalletService/GetWallet"
