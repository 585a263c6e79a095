"""The client: address, key, encryption, deadlines, typed errors on every kind of call."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from zaaz.credits.v1.usage_service_pb2 import (
    IngestUsageRequest,
    ListRejectedUsageRequest,
    OpenUsageStream,
    UsageFrame,
)
from zaaz.wallet.v1.wallet_service_pb2 import GetWalletRequest
from zaaz_client import DeadlineExceeded, Unavailable, WriterFenced, ZaazClient
from zaaz_client.channel import is_loopback
from zaaz_client.errors import MethodUnimplemented

from .bank import Bank
from .peer import KEY, Do, Peer, event, script

USER = "65f0000000000000000000aa"


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("127.0.0.1:50051", True),
        ("127.8.0.1:1", True),
        ("localhost:50051", True),
        ("localhost", True),
        ("[::1]:50051", True),
        ("unix:/run/zaaz.sock", True),
        ("unix-abstract:zaaz", True),
        ("ipv4:127.0.0.1:50051", True),
        ("ipv6:[::1]:50051", True),
        ("dns:///localhost:50051", True),
        ("dns:localhost:50051", True),
        ("zaaz.example.com:443", False),
        ("127.0.0.1.example.com:443", False),
        ("127.evil.example:443", False),
        ("10.0.0.7:50051", False),
        ("dns:///zaaz.example.com:443", False),
        ("dns://127.0.0.1/zaaz.example.com:443", False),
        ("[2001:db8::1]:443", False),
        ("ipv4:127.0.0.1:1,10.0.0.1:1", False),
    ],
)
def test_only_this_machine_may_be_spoken_to_in_clear(target: str, local: bool) -> None:
    assert is_loopback(target) is local


@pytest.mark.parametrize("key", ["a b", "a\nb", "schlüssel", "\x00"])
def test_a_key_that_no_header_carries_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="api_key"):
        ZaazClient("127.0.0.1:1", key)


async def test_a_client_that_is_not_open_says_so(peer: Peer) -> None:
    client = ZaazClient(peer.target, KEY)
    with pytest.raises(RuntimeError, match="async with"):
        _ = client.wallets
    async with client:
        pass
    with pytest.raises(RuntimeError, match="async with"):
        client.usage_stream("w")


async def test_unary_calls_answer_and_raise_typed(client: ZaazClient, bank: Bank) -> None:
    bank.grants[USER] = {"a": 5}
    answer = await client.wallets.GetWallet(GetWalletRequest(user_id=USER))
    assert answer.wallet.credits_micros == 5
    bank.failures_left = 1
    with pytest.raises(Unavailable, match="scripted failure"):
        await client.wallets.GetWallet(GetWalletRequest(user_id=USER))
    with pytest.raises(MethodUnimplemented):
        await client.usage.ListRejectedUsage(ListRejectedUsageRequest())


async def test_calls_in_a_row_and_at_once(client: ZaazClient, bank: Bank) -> None:
    bank.grants[USER] = {"a": 5}
    request = GetWalletRequest(user_id=USER)
    answers = await asyncio.gather(*(client.wallets.GetWallet(request) for _ in range(20)))
    assert {answer.wallet.credits_micros for answer in answers} == {5}


async def test_the_default_deadline_is_kept(peer: Peer, bank: Bank) -> None:
    async def hang(context: object) -> None:
        await asyncio.sleep(30)

    bank.falter = hang  # type: ignore[method-assign]
    async with ZaazClient(peer.target, KEY, timeout_seconds=0.1) as client:
        with pytest.raises(DeadlineExceeded):
            await client.wallets.GetWallet(GetWalletRequest(user_id=USER))
    async with ZaazClient(peer.target, KEY) as client:
        with pytest.raises(DeadlineExceeded):
            await client.wallets.GetWallet(GetWalletRequest(user_id=USER), timeout=0.1)


async def test_metadata_of_the_caller_goes_along(peer: Peer, client: ZaazClient) -> None:
    call = client.usage.IngestUsage(metadata=(("x-trace", "7"),))
    await call.write(IngestUsageRequest(open=OpenUsageStream(writer_id="w")))
    await call.read()
    call.cancel()
    assert peer.metadata[0]["x-trace"] == "7"
    assert peer.metadata[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("iterate", [True, False])
async def test_streams_raise_typed(peer: Peer, client: ZaazClient, iterate: bool) -> None:
    peer.script = script([Do.ACK], then=Do.FENCE)

    async def requests() -> AsyncIterator[IngestUsageRequest]:
        yield IngestUsageRequest(open=OpenUsageStream(writer_id="w"))
        yield IngestUsageRequest(frame=UsageFrame(offset=0, events=[event(0)]))
        yield IngestUsageRequest(frame=UsageFrame(offset=1, events=[event(1)]))
        await asyncio.sleep(30)

    call = client.usage.IngestUsage(requests())
    kinds: list[str | None] = []

    async def read() -> None:
        if iterate:
            async for response in call:
                kinds.append(response.WhichOneof("response"))
        else:
            while True:
                answer = await call.read()
                kinds.append(getattr(answer, "WhichOneof")("response"))  # noqa: B009

    with pytest.raises(WriterFenced):
        await read()
    assert kinds == ["opened", "ack"]


async def test_nobody_there_is_unavailable(peer: Peer) -> None:
    target = peer.target
    await peer.stop()
    async with ZaazClient(target, KEY) as client:
        with pytest.raises(Unavailable):
            await client.wallets.GetWallet(GetWalletRequest(user_id=USER))


def certificate() -> tuple[bytes, bytes]:
    """A key and a certificate of its own for 127.0.0.1, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "zaaz test")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private, signed.public_bytes(serialization.Encoding.PEM)


async def test_encrypts_with_the_roots_that_it_is_given() -> None:
    private, roots = certificate()
    secure = Peer()  # type: ignore[abstract]
    secure.credentials = grpc.ssl_server_credentials([(private, roots)])
    await secure.start()
    try:
        async with (
            ZaazClient(secure.target, KEY, tls=roots) as client,
            client.usage_stream("w") as stream,
        ):
            await stream.send(event(0))
        assert secure.writers["w"].keys == ["key-0"]
        async with ZaazClient(secure.target, KEY, tls=True) as stranger:
            with pytest.raises(Unavailable):
                await stranger.wallets.GetWallet(GetWalletRequest(user_id=USER))
    finally:
        await secure.stop()
