"""Keys and certificates that are replaced while the client runs."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from zaaz.auth.v1.auth_service_pb2 import (
    CreateApiKeyRequest,
    ListApiKeysRequest,
    RevokeApiKeyRequest,
)
from zaaz.credits.v1.credits_service_pb2 import GrantCreditsRequest
from zaaz.ledger.v1.grant_pb2 import INCREASE_SOURCE_BONUS
from zaaz.wallet.v1.wallet_service_pb2 import (
    CreateWalletRequest,
    GetWalletRequest,
    WatchWalletRequest,
)
from zaaz_client import (
    KeyFile,
    KeyReplaced,
    Tls,
    WalletChanged,
    WalletEvent,
    WalletSnapshot,
    WalletWatch,
    WatchSettings,
    ZaazClient,
)
from zaaz_client.errors import ApiKeyRevoked, CredentialsInvalid, CredentialsMissing
from zaaz_client.retry import retry_within

from server.app import running
from server.config import Settings
from server.kernel.clock import system_clock
from server.rpc.logs import configure_logging
from tests.certificates import Authority
from tests.conftest import MongoClient
from tests.ledger.calls import PRICE, soon
from tests.serving import SECRET, Served, make_key, new_key, new_user, usage_event

from .peer import Peer, status
from .proxy import CuttingProxy
from .rotating import QUICK, replace, until

CREDITS = 1_000 * PRICE
QUICK_WATCH = WatchSettings(max_backoff_seconds=0.1)
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


async def new_client_key(served: Served) -> tuple[str, str]:
    """An admin key, and its id."""
    request = CreateApiKeyRequest(request_id=new_key(), client_id="tests", scopes=["admin"])
    made = await served.auth.CreateApiKey(request)
    return made.key, made.api_key.id


async def revoke(served: Served, key_id: str) -> None:
    await served.auth.RevokeApiKey(RevokeApiKeyRequest(id=key_id, request_id=new_key()))


def _ticked(folder: Path, before: os.stat_result) -> bool:
    """Whether the clock of the file system, which is coarse, has moved on."""
    (folder / "tick").touch()
    return (folder / "tick").stat().st_ctime_ns > before.st_ctime_ns


class TestKeys:
    async def test_each_call_carries_the_newest(self, peer: Peer) -> None:
        keys = iter(["k0", "k1", "k2", "k2"])
        async with ZaazClient(peer.target, lambda: next(keys)) as client:
            for _ in range(3):
                async with asyncio.timeout(10):
                    call = client.usage.IngestUsage()
                    await call.done_writing()
                    await call.code()
        sent = [metadata["authorization"] for metadata in peer.metadata]
        assert sent == ["Bearer k1", "Bearer k2", "Bearer k2"]

    async def test_of_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "key"
        file.write_text("one\n")
        key = KeyFile(file)
        assert key() == key() == "one"
        replace(file, "two")
        assert key() == "two"
        for content in ("", "  \n"):
            replace(file, content)
            with pytest.raises(ValueError, match="is empty"):
                key()
        file.unlink()
        with pytest.raises(FileNotFoundError):
            key()

    async def test_of_a_link_that_is_turned(self, tmp_path: Path) -> None:
        """As Kubernetes replaces mounted secrets."""
        for name in ("one", "two"):
            (tmp_path / name).write_text(name)
            os.utime(tmp_path / name, (1_800_000_000, 1_800_000_000))
        link = tmp_path / "key"
        link.symlink_to(tmp_path / "one")
        key = KeyFile(link)
        assert key() == "one"
        link.unlink()
        link.symlink_to(tmp_path / "two")
        assert key() == "two"

    async def test_of_a_file_that_looks_the_same(self, tmp_path: Path) -> None:
        file = tmp_path / "key"
        file.write_text("k0")
        before = file.stat()
        key = KeyFile(file)
        assert key() == "k0"
        await until(lambda: _ticked(tmp_path, before))
        file.write_text("k1")  # as `rsync --inplace --times` does
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert key() == "k1"

    async def test_opening_says_what_is_wrong(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            await ZaazClient("127.0.0.1:1", KeyFile(tmp_path / "none")).__aenter__()
        with pytest.raises(ValueError, match="printable ASCII"):
            await ZaazClient("127.0.0.1:1", lambda: "a b").__aenter__()

    async def test_the_last_one_outlives_its_file(
        self, served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        file = tmp_path / "key"
        file.write_text(served.api_key)
        user_id = await served.new_wallet()
        request = GetWalletRequest(user_id=user_id)
        caplog.set_level(logging.WARNING, "zaaz_client")
        async with ZaazClient(served.target, KeyFile(file)) as client:
            file.unlink()
            for _ in range(2):
                await client.wallets.GetWallet(request)
        (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert "no newer API key" in warning.message

    async def test_a_refused_call_is_made_again_with_another(self, served: Served) -> None:
        user_id = await served.new_wallet(7)
        keys = iter(["zaaz_wrong", "zaaz_wrong", served.api_key])
        async with ZaazClient(served.target, lambda: next(keys)) as client:
            found = await client.wallets.GetWallet(GetWalletRequest(user_id=user_id))
        assert found.wallet.credits_micros == 7

    async def test_but_only_once_and_only_with_another(self, served: Served) -> None:
        request = GetWalletRequest(user_id=new_user())
        asked = 0

        def ask() -> str:
            nonlocal asked
            asked += 1
            return f"zaaz_wrong{asked}"

        async with ZaazClient(served.target, ask) as client:
            with pytest.raises(CredentialsInvalid):
                await client.wallets.GetWallet(request)
        assert asked == 4  # when it was opened, for the call, after its refusal, for the second
        async with ZaazClient(served.target, lambda: "zaaz_wrong") as client:
            with pytest.raises(CredentialsInvalid):
                await client.wallets.GetWallet(request)
            with pytest.raises(CredentialsInvalid):
                await client.wallets.WatchWallet(WatchWalletRequest(user_id=new_user())).read()

    async def test_the_deadline_is_that_of_both(self, peer: Peer) -> None:
        left: list[float] = []

        async def refuse(request: bytes, context: Any) -> bytes:
            left.append(context.time_remaining())
            await asyncio.sleep(0.3)
            await context.abort(UNAUTHENTICATED, "", _details("CREDENTIALS_INVALID"))
            return b""

        await peer.stop()
        peer.services.append(lambda server: server.add_generic_rpc_handlers((_Any(refuse),)))
        await peer.start()
        keys = iter("abcd")
        async with ZaazClient(peer.target, lambda: next(keys)) as client:
            with pytest.raises(CredentialsInvalid):
                await client.wallets.GetWallet(GetWalletRequest(), timeout=5)
        first, second = left
        assert second < first - 0.25

    async def test_without_any(self) -> None:
        client = ZaazClient("127.0.0.1:1", KeyFile("/no/such/file"))
        with pytest.raises(CredentialsMissing, match="no/such"):
            client._authorization.metadata()

    async def test_streams_go_on_with_a_new_key(self, served: Served, tmp_path: Path) -> None:
        file = tmp_path / "key"
        old, old_id = await new_client_key(served)
        new, new_id = await new_client_key(served)
        file.write_text(old)
        user_id = await served.new_wallet(CREDITS)
        seen: list[WalletEvent] = []
        async with ZaazClient(served.target, KeyFile(file)) as client:
            raw = client.wallets.WatchWallet(WatchWalletRequest(user_id=user_id))
            await raw.read()
            stream = client.usage_stream(new_key(), settings=QUICK)
            events = client.watch_wallet(user_id, settings=QUICK_WATCH)
            await stream.__aenter__()
            seen.append(await soon(anext(events)))
            await stream.send(usage_event(user_id))
            await stream.flush()
            replace(file, new)
            await revoke(served, old_id)
            with pytest.raises(KeyReplaced, match="API_KEY_REVOKED"):
                await soon(_read_on(raw))
            for _ in range(2):
                await stream.send(usage_event(user_id))
                await soon(stream.flush())
            while _sequence(seen[-1]) < 4:
                seen.append(await soon(anext(events)))
            await until(lambda: stream.counters.reopened == 1)
            await revoke(served, new_id)  # and there is no other
            with pytest.raises(ApiKeyRevoked):
                await soon(anext(events))
            with pytest.raises(ApiKeyRevoked):
                await soon(_send_until_it_fails(stream, user_id))
            events.close()
        assert all(isinstance(event, WalletChanged) for event in seen[1:])
        await served.assert_sound(user_id)


async def _read_on(call: Any) -> None:
    """What has changed by then may come first."""
    while await call.read() is not grpc.aio.EOF:
        pass


async def _send_until_it_fails(stream: Any, user_id: str) -> None:
    while True:
        await stream.send(usage_event(user_id))
        await stream.flush()


def _sequence(event: WalletEvent) -> int:
    return event.wallet.sequence if isinstance(event, WalletSnapshot) else event.sequence


@asynccontextmanager
async def encrypted(
    mongo_url: str, database: str, folder: Path, client_ca: Path | None = None
) -> AsyncIterator[str]:
    """A server with TLS on `database`, and its target."""
    settings = Settings(
        grpc_address="127.0.0.1:0",
        metrics_address="",
        mongo_url=mongo_url,
        mongo_database=database,
        secret=SECRET,
        tls_cert=folder / "cert.pem",
        tls_key=folder / "key.pem",
        tls_client_ca=client_ca,
    )
    async with running(settings, configure_logging("ERROR"), system_clock) as server:
        yield str(server.address)


async def test_nothing_is_lost_while_all_of_it_is_replaced(
    mongo_url: str, mongo_client: MongoClient, tmp_path: Path
) -> None:
    """Server certificate, authority and key, with every connection cut in between."""
    name = f"test_{new_key()[:16]}"
    roots, key_file = tmp_path / "roots.pem", tmp_path / "key"
    authority = Authority()
    authority.certify().write(tmp_path / "cert.pem", tmp_path / "key.pem")
    replace(roots, authority.roots)
    old_key = await make_key(mongo_url, name, "tests", ["admin"])
    replace(key_file, old_key)
    seen: list[WalletEvent] = []
    async with (
        asyncio.timeout(90),
        encrypted(mongo_url, name, tmp_path) as target,
        CuttingProxy(int(target.rpartition(":")[2]), iter(())) as proxy,
        ZaazClient(proxy.target, KeyFile(key_file), tls=Tls(roots=roots)) as client,
    ):
        user_id = await _new_wallet(client)
        async with (
            client.usage_stream("w", settings=QUICK) as stream,
            client.watch_wallet(user_id, settings=QUICK_WATCH) as events,
            asyncio.TaskGroup() as group,
        ):
            seen.append(await anext(events))
            watching = group.create_task(_watch(events, seen))
            for _ in range(3):
                await stream.send_many(usage_event(user_id) for _ in range(30))
                await stream.flush()
                authority = Authority()
                authority.certify().write(tmp_path / "cert.pem", tmp_path / "key.pem")
                replace(roots, authority.roots)
                proxy.cut_all()
                await stream.send_many(usage_event(user_id) for _ in range(30))
                await _replace_key(client, key_file)
                await stream.flush()
            last = (await client.wallets.GetWallet(GetWalletRequest(user_id=user_id))).wallet
            await until(lambda: _sequence(seen[-1]) == last.sequence)
            watching.cancel()
        assert stream.counters.billed + stream.counters.unreported == 180
        assert stream.counters.reopened >= 3
        assert last.credits_micros == CREDITS - 180 * PRICE
        assert last.sequence == 181
    assert all(isinstance(event, WalletChanged) for event in seen[1:])
    await mongo_client.drop_database(name)


async def _new_wallet(client: ZaazClient) -> str:
    user_id = new_user()
    await client.wallets.CreateWallet(CreateWalletRequest(request_id=new_key(), user_id=user_id))
    await client.credits.GrantCredits(
        GrantCreditsRequest(
            request_id=new_key(),
            user_id=user_id,
            credits_micros=CREDITS,
            source=INCREASE_SOURCE_BONUS,
        )
    )
    return user_id


async def _replace_key(client: ZaazClient, file: Path) -> None:
    """Put a new key into the file, and revoke all others. Its connection may have been cut."""
    request = CreateApiKeyRequest(request_id=new_key(), client_id="tests", scopes=["admin"])
    made = await retry_within(client.auth.CreateApiKey, request, 10)
    replace(file, made.key)
    listed = await client.auth.ListApiKeys(ListApiKeysRequest(client_id="tests"))
    for key in listed.api_keys:
        if key.id != made.api_key.id:
            revoked = RevokeApiKeyRequest(id=key.id, request_id=new_key())
            await client.auth.RevokeApiKey(revoked)


async def _watch(events: WalletWatch, seen: list[WalletEvent]) -> None:
    async for one in events:
        seen.append(one)


class _Any(grpc.GenericRpcHandler):
    """Answers every unary method."""

    def __init__(self, answer: Callable[[bytes, Any], Awaitable[bytes]]) -> None:
        self._answer = answer

    def service(self, handler_call_details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)


def _details(reason: str) -> tuple[tuple[str, bytes], ...]:
    made = status(UNAUTHENTICATED, reason)
    return (("grpc-status-details-bin", made.SerializeToString()),)
