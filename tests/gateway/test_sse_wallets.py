"""A wallet's changes as server-sent events, before real servers: some of them get killed."""

import asyncio
import signal
from typing import Any

import httpx2
import pytest
from zaaz.auth.v1 import auth_service_pb2

from tests.gateway.echo import client_of
from tests.gateway.events import Event, Events, opened
from tests.gateway.mortals import gateway
from tests.run.command import Command, free_port
from tests.run.processes import until
from tests.serving import ManualClock, Served, new_key

PATIENCE_SECONDS = 60.0
SOON_SECONDS = 0.05
"""A client of the tests connects again so soon: the gateway's own `retry` is for crowds."""


class Told:
    """What a client knows of a wallet, over all its streams."""

    def __init__(self, user_id: str) -> None:
        self.path = f"/api/user-wallets/{user_id}/watch"
        self.sequence = 0
        self.snapshots = 0
        self.last_id: str | None = None
        self.streams = 0

    def take(self, event: Event) -> None:
        """Nothing is left out, and nothing told twice."""
        if event.name == "snapshot":
            self.snapshots += 1
            self.sequence = int(event.json["snapshot"]["sequence"])
        elif event.name == "change":
            change = event.json["change"]
            assert int(change["first_sequence"]) == self.sequence + 1
            self.sequence = int(change["sequence"])
        else:
            assert event.name == "bookmark"
            assert int(event.json["bookmark"]["sequence"]) == self.sequence

    async def read(self, stream: Events, sequence: int) -> bool:
        """Whether the stream comes as far as this before it ends."""
        while self.sequence < sequence:
            event = await stream.block()
            if event is None:
                return False
            if event.data:
                self.take(event)
                self.last_id = event.id
        return True

    async def follow(self, url: str, key: str, sequence: int) -> None:
        """As EventSource does, until it knows this transaction. Fails if it would give up."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    async with client_of(url) as client:
                        self.streams += 1
                        bearer = f"Bearer {key}"
                        async with opened(
                            client, self.path, self.last_id, authorization=bearer
                        ) as stream:
                            assert stream.answer.status_code == 200, stream.answer.text
                            if await self.read(stream, sequence):
                                return
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(SOON_SECONDS)


async def ticket_for(rest: httpx2.AsyncClient, user_id: str, **fields: Any) -> str:
    body = {
        "method": "zaaz.wallet.v1.WalletService/WatchWallet",
        "request": {"user_id": user_id},
        **fields,
    }
    answer = await rest.post("/api/auth/stream-tickets", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["ticket"])


class TestWatching:
    async def test_the_wallet_then_its_changes(
        self, rest: httpx2.AsyncClient, served: Served
    ) -> None:
        user_id = await served.new_wallet(1_000)
        told = Told(user_id)
        async with opened(rest, told.path) as stream:
            snapshot = await stream.next()
            told.take(snapshot)
            for _ in range(3):
                await served.consume(user_id, 10)
                assert await told.read(stream, told.sequence + 1)

        assert snapshot.json["snapshot"]["credits_micros"] == "1000"
        assert told.sequence == 4

    async def test_it_goes_on_where_it_was(self, rest: httpx2.AsyncClient, served: Served) -> None:
        user_id = await served.new_wallet(1_000)
        told = Told(user_id)
        async with opened(rest, told.path) as stream:
            assert await told.read(stream, 1)
        await served.consume(user_id, 10)
        await served.consume(user_id, 10)

        async with opened(rest, told.path, told.last_id) as stream:
            assert await told.read(stream, 3)

        assert told.snapshots == 1

    async def test_a_token_of_another_wallet_begins_anew(
        self, rest: httpx2.AsyncClient, served: Served
    ) -> None:
        other, told = Told(await served.new_wallet(1)), Told(await served.new_wallet(1))
        async with opened(rest, other.path) as stream:
            assert await other.read(stream, 1)

        async with opened(rest, told.path, other.last_id) as stream:
            event = await stream.next()
            assert await stream.ended()
        assert event.name == "error"
        assert event.json["reason"] == "RESYNC_REQUIRED"

        async with opened(rest, told.path, stream.last_id) as stream:
            assert await told.read(stream, 1)

    async def test_a_token_that_is_too_long(self, rest: httpx2.AsyncClient, served: Served) -> None:
        told = Told(await served.new_wallet())

        async with opened(rest, told.path, "x" * 501) as stream:
            assert stream.answer.status_code == 400

    async def test_its_key_is_revoked(self, rest: httpx2.AsyncClient, served: Served) -> None:
        told = Told(await served.new_wallet(1))
        wanted = auth_service_pb2.CreateApiKeyRequest(
            request_id=new_key(), client_id="partner", scopes=["wallet.read"]
        )
        key = await served.auth.CreateApiKey(wanted)
        bearer = f"Bearer {key.key}"
        async with opened(rest, told.path, authorization=bearer) as stream:
            assert await told.read(stream, 1)

            await served.auth.RevokeApiKey(auth_service_pb2.RevokeApiKeyRequest(id=key.api_key.id))

            event = await stream.next()
            assert await stream.ended()
        assert event.json["reason"] == "API_KEY_REVOKED"
        async with opened(rest, told.path, told.last_id, authorization=bearer) as stream:
            assert stream.answer.status_code == 401


class TestTickets:
    async def test_it_opens_its_wallet_and_no_other(
        self, rest: httpx2.AsyncClient, served: Served
    ) -> None:
        user_id, other = await served.new_wallet(1), await served.new_wallet(1)
        ticket = await ticket_for(rest, user_id)
        told = Told(user_id)
        async with client_of(str(rest.base_url)) as browser:
            async with opened(browser, f"{told.path}?ticket={ticket}") as stream:
                assert await told.read(stream, 1)
            async with opened(browser, f"{told.path}?ticket={ticket}", told.last_id) as stream:
                told.take(await stream.next())
            refused = await browser.get(f"{Told(other).path}?ticket={ticket}")
            unary = await browser.get(f"/api/user-wallets/{user_id}?ticket={ticket}")

        assert refused.status_code == 401
        assert refused.json()["reason"] == "TICKET_INVALID"
        assert unary.status_code == 400

    async def test_it_expires(self, clocked: Served, manual_clock: ManualClock) -> None:
        told = Told(user_id := await clocked.new_wallet(1))
        async with gateway(clocked.target) as url, client_of(url) as browser:
            key = {"authorization": f"Bearer {clocked.api_key}"}
            async with client_of(url, headers=key) as partner:
                partner.headers.update(key)
                ticket = await ticket_for(partner, user_id, ttl_seconds=60)
            manual_clock.advance(60_000)
            async with opened(browser, f"{told.path}?ticket={ticket}", "any") as stream:
                assert stream.answer.status_code == 401

        assert stream.answer.json()["reason"] == "TICKET_INVALID"


class TestDeaths:
    async def test_the_server_is_killed(self, served: Served, mortal: Command) -> None:
        """The gateway lives on: it puts off those who come back too early."""
        told = Told(user_id := await served.new_wallet(1_000))
        async with gateway(mortal.ready["grpc"]) as url:
            await told.follow(url, served.api_key, 1)
            following = asyncio.create_task(told.follow(url, served.api_key, 4))
            await served.consume(user_id, 1)
            await mortal.kill()
            await served.consume(user_id, 1)
            await mortal.start()
            await served.consume(user_id, 1)
            await following

        assert told.snapshots == 1
        assert told.streams > 2, "it came back while the server was away"

    async def test_the_gateway_goes(self, served: Served, caplog: pytest.LogCaptureFixture) -> None:
        """And another one comes at its address."""
        told, port = Told(user_id := await served.new_wallet(1_000)), free_port()
        async with gateway(served.target, port) as url:
            following = asyncio.create_task(told.follow(url, served.api_key, 4))
            await served.consume(user_id, 1)
            await until(lambda: told.sequence == 2, PATIENCE_SECONDS)
        await served.consume(user_id, 1)
        async with gateway(served.target, port):
            await served.consume(user_id, 1)
            await following

        assert told.snapshots == 1
        assert not [each for each in caplog.records if each.name.startswith("uvicorn")], (
            "the stream had ended before uvicorn lost patience"
        )

    async def test_the_server_goes_in_order(self, served: Served, mortal: Command) -> None:
        told = Told(user_id := await served.new_wallet(1_000))
        async with gateway(mortal.ready["grpc"]) as url:
            following = asyncio.create_task(told.follow(url, served.api_key, 3))
            await until(lambda: told.sequence == 1, PATIENCE_SECONDS)
            await mortal.stop(signal.SIGTERM)
            await served.consume(user_id, 1)
            await mortal.start()
            await served.consume(user_id, 1)
            await following

        assert told.snapshots == 1
