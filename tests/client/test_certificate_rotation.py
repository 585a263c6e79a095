"""Certificates that are replaced while the client runs."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from zaaz_client import (
    Tls,
    Unavailable,
    ZaazClient,
)

from tests.certificates import Authority

from .peer import KEY, Peer, event
from .rotating import QUICK, credentials, deliver, opening, replace, until


class TestCertificates:
    @pytest.fixture
    async def secure(self, tmp_path: Path) -> AsyncIterator[Peer]:
        """A peer whose certificate follows `cert.pem`, known by `roots.pem`."""
        peer = Peer()  # type: ignore[abstract]
        self.authority = Authority()
        peer.credentials = credentials(self.authority.certify())
        (tmp_path / "roots.pem").write_bytes(self.authority.roots)
        await peer.start()
        yield peer
        await peer.stop()

    async def test_changed_roots_are_used_for_the_next_call(
        self, secure: Peer, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, "zaaz_client")
        roots = tmp_path / "roots.pem"
        right = roots.read_bytes()
        replace(roots, Authority().roots)
        async with ZaazClient(secure.target, KEY, tls=Tls(roots=roots)) as client:
            with pytest.raises(Unavailable):
                await client.usage.IngestUsage(opening()).read()
            replace(roots, "nothing")
            with pytest.raises(Unavailable):
                await client.usage.IngestUsage(opening()).read()
            assert "cannot be used" in caplog.text
            replace(roots, right)
            async with client.usage_stream("w", settings=QUICK) as stream:
                await stream.send(event(0))
        assert secure.writers["w"].keys == ["key-0"]

    async def test_calls_under_way_end_where_they_began(self, secure: Peer, tmp_path: Path) -> None:
        roots = tmp_path / "roots.pem"
        async with (
            ZaazClient(secure.target, KEY, tls=Tls(roots=str(roots))) as client,
            client.usage_stream("old", settings=QUICK) as old,
        ):
            await old.send(event(0))
            await old.flush()
            connections = client.channel._connections
            first = connections.newest()
            replace(roots, Authority().roots + roots.read_bytes())
            async with client.usage_stream("new", settings=QUICK) as new:
                await new.send(event(0))
                await new.flush()
                await old.send(event(1))
                await old.flush()
            assert connections.newest() is not first
            assert not first.is_closed
            assert old.counters.reopened == 0
            await old.close()
            await until(lambda: first.is_closed)
        assert secure.writers["old"].keys == ["key-0", "key-1"]
        assert secure.writers["new"].keys == ["key-0"]

    async def test_of_this_side_of_bytes_and_of_files(self, tmp_path: Path) -> None:
        authority, clients = Authority(), Authority()
        peer = Peer()  # type: ignore[abstract]
        pair = authority.certify()
        peer.credentials = grpc.ssl_server_credentials(
            [(pair.key, pair.certificate)], clients.roots, require_client_auth=True
        )
        await peer.start()
        own = clients.certify()
        certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        Authority().certify().write(certificate, key)
        try:
            given = Tls(roots=authority.roots, certificate=own.certificate, key=own.key)
            await deliver(ZaazClient(peer.target, KEY, tls=given), "bytes")
            from_files = Tls(roots=authority.roots, certificate=certificate, key=key)
            async with ZaazClient(peer.target, KEY, tls=from_files) as client:
                with pytest.raises(Unavailable):
                    await client.usage.IngestUsage(opening()).read()
                replace(key, own.key)  # half of it: nothing is tried with that
                assert client.channel._connections.newest() is client.channel._connections.newest()
                replace(certificate, own.certificate)
                async with client.usage_stream("files", settings=QUICK) as stream:
                    await stream.send(event(0))
            with pytest.raises(Unavailable):
                await deliver(ZaazClient(peer.target, KEY, tls=authority.roots), "none")
        finally:
            await peer.stop()
        assert set(peer.writers) == {"bytes", "files"}

    async def test_what_cannot_be_used_is_told_once(
        self, secure: Peer, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        pair = Authority().certify()
        for name, content in (("cert", pair.certificate), ("key", pair.key)):
            replace(tmp_path / name, content)
        roots, certificate = tmp_path / "roots.pem", tmp_path / "cert"
        tls = Tls(roots=roots, certificate=certificate, key=tmp_path / "key")
        async with ZaazClient(secure.target, KEY, tls=tls) as client:
            roots.unlink()
            replace(certificate, pair.certificate)
            for _ in range(5):
                client.usage.IngestUsage(opening()).cancel()
        assert len(caplog.records) == 1

    async def test_what_makes_no_sense_is_said_when_opening(self, tmp_path: Path) -> None:
        one, other = Authority().certify(), Authority().certify()
        wrong: list[tuple[Tls, str]] = [
            (Tls(roots=b"x"), "roots: no certificates"),
            (Tls(certificate=b"x", key=one.key), "certificate: no certificates"),
            (Tls(certificate=one.certificate, key=b"x"), "key: no private key"),
            (Tls(certificate=one.certificate, key=other.key), "belong together"),
        ]
        for tls, said in wrong:
            with pytest.raises(ValueError, match=said):
                await ZaazClient("127.0.0.1:1", KEY, tls=tls).__aenter__()
        with pytest.raises(FileNotFoundError):
            await ZaazClient("127.0.0.1:1", KEY, tls=Tls(roots=tmp_path / "no")).__aenter__()
        with pytest.raises(ValueError, match="go together"):
            Tls(certificate=one.certificate)
        assert "PRIVATE" not in repr(Tls(certificate=one.certificate, key=one.key))
