"""Certificates that are renewed while the server runs, and clients that have to show one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from server.rpc.address import Address
from server.rpc.server import CannotServeError
from server.rpc.tls import TlsFiles
from tests.certificates import Authority, Certified
from tests.rpc.edge import SERVICE, Options, Running, echo, request, running
from tests.rpc.test_serving import make_server


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")


@asynccontextmanager
async def serving(files: TlsFiles) -> AsyncIterator[Running]:
    async with running(Options(server={"tls": files}), Unary=echo) as server:
        yield server


async def call(server: Running, roots: bytes, own: Certified | None = None) -> grpc.StatusCode:
    """How a call over a new connection ends."""
    key, certificate = (own.key, own.certificate) if own else (None, None)
    credentials = grpc.ssl_channel_credentials(roots, key, certificate)
    target = f"localhost:{server.address.port}"
    async with grpc.aio.secure_channel(target, credentials) as channel:
        return await call_over(channel, server)


async def call_over(channel: grpc.aio.Channel, server: Running) -> grpc.StatusCode:
    method: Any = channel.unary_unary(f"/{SERVICE}/Unary")
    try:
        await method(request().SerializeToString(), metadata=server.metadata, timeout=10)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE


async def test_a_renewed_certificate_is_shown_to_new_connections(files: TlsFiles) -> None:
    old, new = Authority(), Authority()
    old.certify().write(files.certificate, files.key)
    async with serving(files) as server:
        credentials = grpc.ssl_channel_credentials(old.roots)
        target = f"localhost:{server.address.port}"
        async with grpc.aio.secure_channel(target, credentials) as before:
            assert await call_over(before, server) is OK
            new.certify().write(files.certificate, files.key)
            assert await call(server, new.roots) is OK
            assert await call(server, old.roots) is UNAVAILABLE
            assert await call_over(before, server) is OK


async def test_half_a_renewal_changes_nothing(files: TlsFiles) -> None:
    old, new = Authority(), Authority()
    old.certify().write(files.certificate, files.key)
    renewed = new.certify()
    async with serving(files) as server:
        files.certificate.write_bytes(renewed.certificate)
        assert await call(server, old.roots) is OK
        files.key.unlink()
        assert await call(server, old.roots) is OK
        files.key.write_bytes(renewed.key)
        assert await call(server, new.roots) is OK
        assert await call(server, old.roots) is UNAVAILABLE


async def test_clients_show_a_certificate(files: TlsFiles, tmp_path: Path) -> None:
    authority, clients, strangers = Authority(), Authority(), Authority()
    authority.certify().write(files.certificate, files.key)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(clients.roots)
    own = clients.certify()
    async with serving(TlsFiles(files.certificate, files.key, ca)) as server:
        assert await call(server, authority.roots) is UNAVAILABLE
        assert await call(server, authority.roots, strangers.certify()) is UNAVAILABLE
        assert await call(server, authority.roots, own) is OK
        ca.write_bytes(strangers.roots)
        assert await call(server, authority.roots, own) is UNAVAILABLE
        assert await call(server, authority.roots, strangers.certify()) is OK


@pytest.mark.parametrize("setting", ["ZAAZ_TLS_CERT", "ZAAZ_TLS_KEY", "ZAAZ_TLS_CLIENT_CA"])
async def test_the_setting_is_named(files: TlsFiles, tmp_path: Path, setting: str) -> None:
    Authority().certify().write(files.certificate, files.key)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(Authority().roots)
    tls = TlsFiles(files.certificate, files.key, ca)
    spoilt = dict(
        zip(["ZAAZ_TLS_CERT", "ZAAZ_TLS_KEY", "ZAAZ_TLS_CLIENT_CA"], tls_paths(tls), strict=True)
    )[setting]
    spoilt.write_text("nothing")
    with pytest.raises(CannotServeError, match=f"{setting} holds no"):
        await make_server(Address("127.0.0.1", 0), tls=tls).start()
    spoilt.unlink()
    with pytest.raises(CannotServeError, match=f"{setting}: .*No such file"):
        await make_server(Address("127.0.0.1", 0), tls=tls).start()


def tls_paths(tls: TlsFiles) -> tuple[Path, Path, Path]:
    assert tls.client_ca is not None
    return tls.certificate, tls.key, tls.client_ca
