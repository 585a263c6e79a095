"""Server-sent events before a service that echoes: their form, their ends, their bounds."""

import asyncio
import json
import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import httpx2
import pytest

from gateway.open_streams import OpenStreams
from gateway.security import SecuritySettings
from gateway.sse import MAX_RETRY_SECONDS, MIN_RETRY_SECONDS, RESYNC_ID
from tests.gateway.echo import UNLIMITED, Echo, client_of, gateway_to, grpc_serving
from tests.gateway.events import PATIENCE_SECONDS, opened
from tests.run.processes import until

WATCH = "/api/things/7/watch"
OUT_OF_RANGE, UNAUTHENTICATED, INTERNAL, UNAVAILABLE, EXHAUSTED = 11, 16, 13, 14, 8


@asynccontextmanager
async def gateway(
    echo: Echo, security: SecuritySettings = UNLIMITED, streams: OpenStreams | None = None
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a gateway before `echo`."""
    async with (
        grpc_serving(echo) as target,
        gateway_to(target, security, streams) as url,
        client_of(url) as client,
    ):
        yield client


class TestForm:
    async def test_a_message_is_an_event(self, own: httpx2.AsyncClient, echo: Echo) -> None:
        async with opened(own, f"{WATCH}?count=2&size_bytes=1") as stream:
            first, second, third = [await stream.block() for _ in range(3)]

        assert stream.answer.headers["cache-control"] == "no-store"
        assert stream.answer.headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in stream.answer.headers
        assert first is not None
        assert second is not None
        assert third is not None
        assert MIN_RETRY_SECONDS * 1000 <= first.retry_ms <= MAX_RETRY_SECONDS * 1000
        assert (second.id, second.name) == ("1", "thing")
        assert second.json["resume_token"] == "1"
        assert second.json["thing"]["name"] == "x"
        assert (third.id, third.name) == ("2", "thing")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await echo.cancelled.wait()

    async def test_heads_have_no_events(self, own: httpx2.AsyncClient, echo: Echo) -> None:
        answer = await own.head(f"{WATCH}?count=1")

        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        async with asyncio.timeout(PATIENCE_SECONDS):
            await echo.cancelled.wait()

    async def test_silence_is_filled(self) -> None:
        async with (
            gateway(Echo(), streams=OpenStreams(heartbeat_seconds=0.05)) as client,
            opened(client, WATCH) as stream,
        ):
            blocks = [await stream.block() for _ in range(4)]

        assert blocks[0] is not None
        assert blocks[0].retry_ms
        assert all(block is not None and block.comments == [""] for block in blocks[1:])

    async def test_no_limit_of_a_request_ends_it(self) -> None:
        """Those are for heads and bodies that come slowly, and for connections that wait."""
        security = SecuritySettings(
            rate_per_second=0,
            key_rate_per_second=0,
            head_timeout_seconds=0.1,
            body_window_seconds=0.1,
            write_timeout_seconds=0.1,
            idle_timeout_seconds=1,
        )
        async with (
            gateway(Echo(), security, OpenStreams(heartbeat_seconds=0.05)) as client,
            opened(client, f"{WATCH}?count=1") as stream,
        ):
            blocks = [await stream.block() for _ in range(30)]

        assert all(block is not None for block in blocks)

    async def test_the_clients_ids_go_on(self, own: httpx2.AsyncClient, echo: Echo) -> None:
        async with opened(own, f"{WATCH}?count=1", **{"x-request-id": "mine"}) as stream:
            await stream.next()

        assert stream.answer.headers["x-request-id"] == "mine"
        assert ("x-request-id", "mine") in echo.metadata


class TestResuming:
    @pytest.mark.parametrize(
        ("query", "last_id", "token"),
        [
            ("", None, ""),
            ("&resume_token=3", None, "3"),
            ("", "4", "4"),
            ("&resume_token=3", "4", "4"),
            ("&resume_token=3", RESYNC_ID, ""),
            (f"&resume_token={RESYNC_ID}", None, ""),
        ],
    )
    async def test_the_header_wins(
        self, own: httpx2.AsyncClient, echo: Echo, query: str, last_id: str | None, token: str
    ) -> None:
        async with opened(own, f"{WATCH}?count=1{query}", last_id) as stream:
            event = await stream.next()

        assert echo.watched[0].resume_token == token
        assert event.id == str(int(token or 0) + 1)

    async def test_it_stands_once(self, own: httpx2.AsyncClient) -> None:
        headers = [("last-event-id", "1"), ("last-event-id", "2")]
        answer = await own.get(WATCH, headers=headers)

        assert answer.status_code == 400
        assert answer.json()["violations"][0]["field"] == "last-event-id"


class TestEnds:
    @pytest.mark.parametrize(
        ("code", "reason", "status"),
        [
            (UNAUTHENTICATED, "CREDENTIALS_INVALID", 401),
            (OUT_OF_RANGE, "RESYNC_REQUIRED", 400),
            (UNAVAILABLE, "DRAINING", 503),
            (UNAVAILABLE, "", 503),
        ],
    )
    async def test_refused_at_first(
        self, echoed: httpx2.AsyncClient, code: int, reason: str, status: int
    ) -> None:
        answer = await echoed.get(WATCH, params={"code": code, "reason": reason})

        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["reason"] == (reason or "DEPENDENCY_UNAVAILABLE")

    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            (UNAVAILABLE, "DRAINING"),
            (UNAVAILABLE, ""),
            (EXHAUSTED, "TOO_MANY_WATCHERS"),
            (INTERNAL, ""),
        ],
    )
    async def test_who_resumes_is_put_off(
        self, echoed: httpx2.AsyncClient, code: int, reason: str
    ) -> None:
        async with opened(echoed, f"{WATCH}?code={code}&reason={reason}", "5") as stream:
            block = await stream.block()
            assert await stream.ended()

        assert block is not None
        assert block.retry_ms >= MIN_RETRY_SECONDS * 1000
        assert block.id is None

    @pytest.mark.parametrize(
        ("code", "reason"), [(UNAUTHENTICATED, "API_KEY_REVOKED"), (UNAUTHENTICATED, "")]
    )
    async def test_who_may_not_resume_is_told_for_good(
        self, echoed: httpx2.AsyncClient, code: int, reason: str
    ) -> None:
        async with opened(echoed, f"{WATCH}?code={code}&reason={reason}", "5") as stream:
            assert stream.answer.status_code == 401

    @pytest.mark.parametrize("reason", ["DRAINING", ""])
    async def test_a_server_that_goes_ends_it_so_that_it_resumes(
        self, echoed: httpx2.AsyncClient, reason: str
    ) -> None:
        url = f"{WATCH}?count=2&code={UNAVAILABLE}&reason={reason}"
        async with opened(echoed, url) as stream:
            await stream.next()
            await stream.next()
            assert await stream.ended()

        assert stream.last_id == "2"

    async def test_a_key_that_ends_is_told(self, echoed: httpx2.AsyncClient) -> None:
        url = f"{WATCH}?count=1&code={UNAUTHENTICATED}&reason=API_KEY_REVOKED"
        async with opened(echoed, url) as stream:
            await stream.next()
            event = await stream.next()
            assert await stream.ended()

        assert event.name == "error"
        assert (event.json["status"], event.json["reason"]) == (401, "API_KEY_REVOKED")
        assert stream.last_id == "1"

    @pytest.mark.parametrize(("count", "last_id"), [(1, None), (0, "5")])
    async def test_resync_begins_anew(
        self, own: httpx2.AsyncClient, echo: Echo, count: int, last_id: str | None
    ) -> None:
        url = f"{WATCH}?count={count}&code={OUT_OF_RANGE}&reason=RESYNC_REQUIRED"
        async with opened(own, url, last_id) as stream:
            if count:
                await stream.next()
            event = await stream.next()
            assert await stream.ended()
        assert event.name == "error"
        assert event.json["reason"] == "RESYNC_REQUIRED"
        assert stream.last_id == RESYNC_ID

        async with opened(own, f"{WATCH}?count=1", stream.last_id) as again:
            assert (await again.next()).id == "1"

    async def test_the_gateway_ends_its_streams_when_it_stops(self, echo: Echo) -> None:
        streams = OpenStreams()
        async with (
            gateway(echo, streams=streams) as client,
            opened(client, f"{WATCH}?count=1") as stream,
        ):
            await stream.next()
            streams.end()
            assert await stream.ended()
            refused = await client.get(WATCH)
            async with opened(client, WATCH, "1") as put_off:
                assert await put_off.ended()
        assert refused.status_code == 503
        assert not len(streams)


class TestBounds:
    async def test_so_many_in_all(self, echo: Echo) -> None:
        async with (
            gateway(echo, streams=OpenStreams(max_streams=1)) as client,
            opened(client, f"{WATCH}?count=1") as stream,
        ):
            await stream.next()
            refused = await client.get(WATCH)
            async with opened(client, WATCH, "1") as put_off:
                block = await put_off.block()

        assert refused.status_code == 429
        assert refused.json()["reason"] == "TOO_MANY_WATCHERS"
        assert block is not None
        assert block.retry_ms == 10_000

    async def test_so_many_of_a_key_and_its_tickets(self, echo: Echo) -> None:
        streams = OpenStreams(max_per_key=1)
        url = f"{WATCH}?count=1"
        async with gateway(echo, streams=streams) as client:
            async with opened(client, url, authorization="Bearer zaaz_one_secret") as stream:
                await stream.next()
                refused = await client.get(f"{url}&ticket=zaazt_one_9_signature")
                async with opened(client, f"{url}&ticket=zaazt_two_9_signature") as other:
                    await other.next()
            await until(lambda: not len(streams), PATIENCE_SECONDS)
            async with opened(client, url, authorization="Bearer zaaz_one_secret") as stream:
                await stream.next()

        assert refused.status_code == 429
        assert refused.json()["metadata"] == {"limit": "1"}

    async def test_who_comes_back_too_often_is_put_off(self, echo: Echo) -> None:
        """EventSource would take a 429 for the end."""
        security = SecuritySettings(rate_per_second=0.01)
        async with gateway(echo, security) as client:
            async with opened(client, f"{WATCH}?count=1") as stream:
                await stream.next()
            async with opened(client, WATCH, "1") as again:
                block = await again.block()
                assert await again.ended()
            at_first = await client.get(WATCH, headers={"accept": "text/event-stream"})
            elsewhere = await client.get(WATCH, headers={"last-event-id": "1"})

        assert block is not None
        assert block.retry_ms >= 1_000
        assert (at_first.status_code, elsewhere.status_code) == (429, 429)

    async def test_who_does_not_read_is_cut_off(self, echo: Echo) -> None:
        """And the server has not been asked for more than lies in between."""
        size, count = 64 * 1024, 2_000
        security = SecuritySettings(
            rate_per_second=0, key_rate_per_second=0, write_timeout_seconds=0.5
        )
        async with gateway(echo, security) as client:
            parts = urlsplit(str(client.base_url))
            with socket.socket() as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                slow.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(slow, (parts.hostname, parts.port))
                path = f"{WATCH}?count={count}&size_bytes={size}"
                await loop.sock_sendall(slow, f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await echo.cancelled.wait()
                sent = echo.bytes_sent
        assert sent < size * count / 4

    async def test_a_client_that_goes_ends_its_call(self, echo: Echo) -> None:
        async with gateway(echo) as client, AsyncExitStack() as stack:
            stream = await stack.enter_async_context(opened(client, f"{WATCH}?count=1"))
            await stream.next()
            await stack.aclose()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await echo.cancelled.wait()


class TestTickets:
    async def test_it_goes_on_as_a_credential(self, own: httpx2.AsyncClient, echo: Echo) -> None:
        async with opened(own, f"{WATCH}?ticket=zaazt_a_1_b&count=1") as stream:
            await stream.next()

        assert ("authorization", "Ticket zaazt_a_1_b") in echo.metadata

    async def test_a_key_wins(self, own: httpx2.AsyncClient, echo: Echo) -> None:
        async with opened(
            own, f"{WATCH}?count=1&ticket=zaazt_a_1_b", authorization="Bearer key"
        ) as stream:
            await stream.next()

        told = [value for name, value in echo.metadata if name == "authorization"]
        assert told == ["Bearer key"]

    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ("ticket=a&ticket=b", 400),
            ("ticket=", 401),
            ("ticket=a%20b", 401),
            ("ticket=" + "a" * 513, 401),
            ("%74icket=secret", 400),
            ("Ticket=secret", 400),
        ],
    )
    async def test_bad_ones(self, echoed: httpx2.AsyncClient, query: str, status: int) -> None:
        answer = await echoed.get(f"{WATCH}?{query}")

        assert answer.status_code == status
        assert "secret" not in answer.text

    async def test_other_methods_take_none(self, echoed: httpx2.AsyncClient) -> None:
        answer = await echoed.get("/api/things/x?ticket=secret")

        assert answer.status_code == 400
        assert "secret" not in answer.text

    async def test_nothing_logs_it(
        self, own: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        ticket = "zaazt_secret_1_b"
        with caplog.at_level(logging.DEBUG):
            async with opened(own, f"{WATCH}?count=1&ticket={ticket}") as stream:
                await stream.next()
            await own.get(f"{WATCH}?count=nonsense&ticket={ticket}")
            await own.get(f"{WATCH}?code={INTERNAL}&ticket={ticket}")

        # The test's own client writes its requests down.
        ours = [each for each in caplog.records if not re.match("http(x|core)", each.name)]
        assert all(ticket not in json.dumps(each.__dict__, default=str) for each in ours)


class TestPages:
    async def test_allowed_origins_may_read(self, echo: Echo) -> None:
        security = SecuritySettings(
            rate_per_second=0, key_rate_per_second=0, cors_origins=("https://app.example",)
        )
        async with (
            gateway(echo, security) as client,
            opened(client, f"{WATCH}?count=1", origin="https://app.example") as stream,
            opened(client, f"{WATCH}?count=1", origin="https://other.example") as other,
        ):
            allowed, refused = stream.answer.headers, other.answer.headers

        assert allowed["access-control-allow-origin"] == "https://app.example"
        assert "access-control-allow-origin" not in refused

    async def test_they_are_described(self, rest: httpx2.AsyncClient) -> None:
        document = (await rest.get("/openapi.json")).json()

        told = document["paths"]["/api/user-wallets/{user_id}/watch"]["get"]
        assert "text/event-stream" in told["responses"]["200"]["content"]
        assert told["security"] == [{"bearer": []}, {"ticket": []}]
        assert document["components"]["securitySchemes"]["ticket"]["name"] == "ticket"
