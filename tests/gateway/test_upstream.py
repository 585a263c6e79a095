"""The gateway's way to the server, whose certificate is renewed while both run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio

from gateway.config import Address, Settings
from gateway.serving import CannotServeError, serving
from gateway.upstream import Upstream, connect
from tests.certificates import Authority
from tests.run.command import free_port


@asynccontextmanager
async def serving_health(port: int, authority: Authority) -> AsyncIterator[None]:
    certified = authority.certify()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health = aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    pair = (certified.key, certified.certificate)
    server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([pair]))
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


async def test_another_authority_is_trusted_once_its_file_is_replaced(tmp_path: Path) -> None:
    one, other, port = Authority(), Authority(), free_port()
    ca = tmp_path / "ca.pem"
    ca.write_bytes(one.roots)
    connections = connect(f"127.0.0.1:{port}", ca)
    upstream = Upstream(connections)
    try:
        async with serving_health(port, one):
            assert await upstream.is_serving()
        async with serving_health(port, other):
            assert not await upstream.is_serving()
            ca.write_text("half a cert")
            assert not await upstream.is_serving()
            ca.write_bytes(other.roots)
            assert await upstream.is_serving()
    finally:
        await connections.close()


async def test_what_nobody_can_be_trusted_by_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    settings = Settings(address=Address("127.0.0.1", 0), grpc_ca=tmp_path / "ca.pem")
    with pytest.raises(CannotServeError, match="ZAAZ_GRPC_CA"):
        await serving(settings).__aenter__()
