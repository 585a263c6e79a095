"""Addresses, TLS, reflection."""

import datetime
import importlib.util
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from server.rpc.address import Address, parse_address
from server.rpc.drain import Drain
from server.rpc.edge import Edge
from server.rpc.server import OPTIONS, CannotServeError, RpcServer, TlsFiles
from server.rpc.telemetry import Telemetry
from server.rpc.tls import Tls
from tests.rpc.edge import SERVICE, Keys, Options, echo, failure, reason_of, request, running

EVERYWHERE = Address("0.0.0.0", 0)


def make_server(address: Address, **options: Any) -> RpcServer:
    edge = Edge(Keys(), lambda _: None, Drain(), Telemetry(None))
    return RpcServer(address, edge, **options)


def make_certificate() -> Tls:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Tls(certificate.public_bytes(serialization.Encoding.PEM), key_pem)


def written(tls: Tls, folder: Path) -> TlsFiles:
    files = TlsFiles(folder / "cert.pem", folder / "key.pem")
    files.certificate.write_bytes(tls.certificate)
    files.key.write_bytes(tls.key)
    return files


async def test_calls_over_tls(tmp_path: Path) -> None:
    tls = make_certificate()
    credentials = grpc.ssl_channel_credentials(tls.certificate)
    options = Options(server={"tls": written(tls, tmp_path)})
    async with running(options, Unary=echo) as server:
        target = f"localhost:{server.address.port}"
        async with grpc.aio.secure_channel(target, credentials) as channel:
            method: Any = channel.unary_unary(f"/{SERVICE}/Unary")
            raw = request().SerializeToString()
            response = await method(raw, metadata=server.metadata)
        error = await failure(server.call("Unary", request(), timeout=5))

    assert request().user_id.encode() in response
    assert error.code() is grpc.StatusCode.UNAVAILABLE  # in the clear


async def test_a_key_that_does_not_fit_its_certificate(tmp_path: Path) -> None:
    tls = written(Tls(make_certificate().certificate, make_certificate().key), tmp_path)
    server = make_server(Address("127.0.0.1", 0), tls=tls)

    with pytest.raises(CannotServeError, match="certificate and key"):
        await server.start()


def test_a_key_stays_out_of_its_repr() -> None:
    assert "PRIVATE" not in repr(make_certificate())


async def test_plaintext_beyond_this_machine_is_refused() -> None:
    with pytest.raises(CannotServeError, match="ZAAZ_PLAINTEXT=trusted-network"):
        await make_server(EVERYWHERE).start()


async def test_plaintext_on_a_trusted_network() -> None:
    server = make_server(EVERYWHERE, plaintext="trusted-network")
    address = await server.start()
    await server.stop(0, 0)

    assert address.port > 0


async def test_an_address_in_use_is_named() -> None:
    async with running(Unary=echo) as server:
        with pytest.raises(CannotServeError, match=f"{server.address}: the address is in use"):
            await make_server(server.address).start()


async def test_an_address_of_another_machine_is_named() -> None:
    server = make_server(Address("192.0.2.1", 50051), plaintext="trusted-network")
    with pytest.raises(CannotServeError, match=r"192\.0\.2\.1:50051: "):
        await server.start()


async def test_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = make_server(Address("::1", 0))
    address = await server.start()
    await server.stop(0, 0)

    assert str(address) == f"[::1]:{address.port}"


@pytest.mark.parametrize("mode", ["auto", "on"])
async def test_reflection_lists_the_services(mode: str) -> None:
    async with running(Options(server={"reflection_mode": mode}), Unary=echo) as server:
        names = await _reflect(server.channel)

    assert SERVICE in names
    assert "grpc.health.v1.Health" in names


async def test_reflection_can_be_off() -> None:
    async with running(Options(server={"reflection_mode": "off"}), Unary=echo) as server:
        error = await failure(_reflect(server.channel))

    assert reason_of(error) == "METHOD_UNIMPLEMENTED"


async def test_reflection_is_off_by_default_beyond_this_machine() -> None:
    server = make_server(EVERYWHERE, plaintext="trusted-network")
    address = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{address.port}") as channel:
        error = await failure(_reflect(channel))
    await server.stop(0, 0)

    assert reason_of(error) == "METHOD_UNIMPLEMENTED"


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051, True),
        ("127.8.8.8:0", "127.8.8.8", 0, True),
        ("localhost:1", "localhost", 1, True),
        ("[::1]:65535", "::1", 65535, True),
        ("0.0.0.0:1", "0.0.0.0", 1, False),
        ("[::]:1", "::", 1, False),
        ("grpc.example.com:443", "grpc.example.com", 443, False),
    ],
)
def test_addresses(text: str, host: str, port: int, is_loopback: bool) -> None:
    address = parse_address(text)

    assert (address.host, address.port, address.is_loopback) == (host, port, is_loopback)
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", ":1", "host", "host:", "host:x", "host:65536", "host:-1", "::1:1", "a b:1", "h:²"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_address(text)


async def _reflect(channel: grpc.aio.Channel) -> list[str]:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    response = await call.read()
    await call.done_writing()
    return [service.name for service in response.list_services_response.service]


@pytest.mark.parametrize("name", [name for name, _ in OPTIONS])
def test_core_knows_every_option(name: str) -> None:
    """It ignores those that it does not know, without a word."""
    library = importlib.util.find_spec("grpc._cython.cygrpc")

    assert library is not None
    assert name.encode() in Path(str(library.origin)).read_bytes()
