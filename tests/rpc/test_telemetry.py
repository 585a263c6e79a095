"""What an operator sees of a call."""

import asyncio
import urllib.request
from typing import Any

import pytest
from zaaz.wallet.v1.wallet_service_pb2 import WalletDifference

from server.rpc.address import Address
from server.rpc.listening import CannotServeError
from server.rpc.telemetry import FIELDS, Telemetry
from tests.rpc.edge import LOOPBACK, SERVICE, Running, echo, failure, request, running

ENVELOPE = {"time", "level", "logger", "event"}


async def two_for_each(requests: Any, _: Any) -> Any:
    async for _message in requests:
        yield WalletDifference()
        yield WalletDifference()


async def fail(_: Any, __: Any) -> WalletDifference:
    raise RuntimeError("hunter2")


def sample(server: Running, name: str, **labels: str) -> float | None:
    """A metric of the service's; flushes first, as the log does."""
    server.edge.telemetry.flush()
    labels = {"grpc_service": SERVICE, **labels}
    return server.edge.telemetry.metrics.registry.get_sample_value(name, labels)


async def test_a_call_is_one_line_of_json() -> None:
    async with running(Unary=echo) as server:
        await server.call("Unary", request())
        event = await server.next_event()

    assert event.pop("time").endswith("Z")
    assert event.pop("duration_ms") > 0
    assert event == {
        "level": "INFO",
        "logger": "server.rpc",
        "event": "rpc",
        "method": f"/{SERVICE}/Unary",
        "code": "OK",
        "client_id": "client-of-good",
    }


async def test_lines_carry_only_what_is_allowed() -> None:
    metadata = (("authorization", "Bearer good"), ("x-request-id", "a-1"), ("x-other", "secret"))
    async with running(Unary=fail, BidiStream=two_for_each, Public=echo) as server:
        await failure(server.call("Unary", request(), metadata=metadata))
        await failure(server.call("Unary", request("bad"), metadata=metadata))
        call = server.call("BidiStream", metadata=metadata)
        await call.done_writing()
        await call.read()
        await server.call("Public", request(), metadata=metadata)
        events = server.events()
        text = server.lines.getvalue()

    assert len(events) == 4
    assert all(set(event) <= FIELDS | ENVELOPE for event in events)
    for secret in ("Bearer", "secret", "hunter2", request().user_id):
        assert secret not in text


async def test_a_refused_call_says_why() -> None:
    async with running(Unary=echo) as server:
        await failure(server.call("Unary", request("bad")))
        event = await server.next_event()

    assert (event["code"], event["reason"]) == ("INVALID_ARGUMENT", "MALFORMED_ID")


@pytest.mark.parametrize(
    ("given", "logged"),
    [("order-4711:a/b=", "order-4711:a/b="), ("x" * 129, None), ('"}{', None), ("", None)],
)
async def test_a_sane_request_id_is_logged(given: str, logged: str | None) -> None:
    async with running(Public=echo) as server:
        await server.call("Public", request(), metadata=(("x-request-id", given),))
        event = await server.next_event()

    assert event.get("request_id") == logged


async def test_a_streams_messages_are_counted() -> None:
    async with running(BidiStream=two_for_each) as server, asyncio.timeout(10):
        call = server.call("BidiStream")
        for _ in range(3):
            await call.write(request())
            await call.read()
            await call.read()
        labels = {"grpc_type": "bidi_stream", "grpc_method": "BidiStream"}
        open_before = sample(server, "grpc_server_open_streams", **labels)
        await call.done_writing()
        await call.read()
        event = await server.next_event()

        assert (event["messages_in"], event["messages_out"]) == (3, 6)
        assert (open_before, sample(server, "grpc_server_open_streams", **labels)) == (1, 0)
        assert sample(server, "grpc_server_msg_received_total", **labels) == 3
        assert sample(server, "grpc_server_msg_sent_total", **labels) == 6


async def test_a_call_is_counted_and_timed() -> None:
    labels = {"grpc_type": "unary", "grpc_method": "Unary"}
    async with running(Unary=echo) as server:
        await server.call("Unary", request())
        await failure(server.call("Unary", request("bad")))

        assert sample(server, "grpc_server_started_total", **labels) == 2
        assert sample(server, "grpc_server_handled_total", grpc_code="OK", **labels) == 1
        refused = sample(
            server, "grpc_server_handled_total", grpc_code="INVALID_ARGUMENT", **labels
        )
        assert refused == 1
        assert sample(server, "grpc_server_handling_seconds_count", **labels) == 2


async def test_unknown_methods_make_no_series() -> None:
    async with running(Unary=echo) as server:
        for name in ("A", "B"):
            method: Any = server.channel.unary_unary(f"/made.up.{name}/{name}")
            await failure(method(b""))
        server.edge.telemetry.flush()
        value = server.edge.telemetry.metrics.registry.get_sample_value(
            "grpc_server_started_total",
            {"grpc_type": "bidi_stream", "grpc_service": "unknown", "grpc_method": "unknown"},
        )

    assert value == 2


async def test_metrics_are_served_over_http() -> None:
    async with running(Unary=echo) as server:
        await server.call("Unary", request())
        server.edge.telemetry.flush()
        address, stop = server.edge.telemetry.serve(LOOPBACK)
        try:
            text = await asyncio.to_thread(_read, f"http://{address}/metrics")
        finally:
            stop()

    line = f'grpc_method="Unary",grpc_service="{SERVICE}",grpc_type="unary"}} 1.0'
    assert f'grpc_server_handled_total{{grpc_code="OK",{line}' in text


def test_an_address_in_use_is_named() -> None:
    address, stop = Telemetry(None).serve(LOOPBACK)
    try:
        with pytest.raises(CannotServeError, match=f"metrics at {address}: Address already in use"):
            Telemetry(None).serve(Address(address.host, address.port))
    finally:
        stop()


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        content: bytes = response.read()
    return content.decode()
