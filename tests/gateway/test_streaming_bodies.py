"""Raw bodies in pieces: whole, in order, bounded, and stopped when either side stops."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator

import httpx2
import pytest

from gateway import streaming
from gateway.routes import routes_of
from gateway.streaming import CHUNK_BYTES, Upload
from tests.gateway.echo import Echo, client_of, echo_file, gateway_to, grpc_serving

Client = httpx2.AsyncClient
MIB = 1024 * 1024
PATIENCE_SECONDS = 20


async def in_parts(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


class TestUploads:
    async def test_every_byte_arrives_in_order(self, own: Client) -> None:
        data = os.urandom(6 * MIB + 1)

        answer = await own.post("/api/uploads/a%20b", content=in_parts(data))

        assert answer.status_code == 200
        said = answer.json()
        assert said["name"] == "a b"
        assert said["size_bytes"] == str(len(data))
        assert said["sha256"] == hashlib.sha256(data).hexdigest()
        assert said["largest_piece_bytes"] <= CHUNK_BYTES

    @pytest.mark.parametrize("data", [b"", b"x"])
    async def test_small_ones(self, own: Client, data: bytes) -> None:
        answer = await own.post("/api/uploads/a", content=data)

        assert answer.json()["size_bytes"] == str(len(data))

    async def test_the_type_goes_along(self, own: Client) -> None:
        headers = {"content-type": "image/png"}
        answer = await own.put("/api/bodies/b", content=b"xyz", headers=headers)

        assert answer.json()["content_type"] == "image/png"
        assert answer.json()["name"] == "b"
        assert answer.json()["size_bytes"] == "3"

    async def test_bad_parameters_are_refused_before_the_body(self, own: Client) -> None:
        answer = await own.post("/api/uploads/a?nope=1", content=b"x")

        assert answer.status_code == 400
        assert answer.json()["metadata"] == {"field": "nope"}

    async def test_a_server_that_has_heard_enough(self, own: Client) -> None:
        data = bytes(8 * CHUNK_BYTES)
        path = "/api/uploads/a?head.stop_after_pieces=2"

        answer = await own.post(path, content=data)

        assert answer.status_code == 200
        assert int(answer.json()["size_bytes"]) <= 2 * CHUNK_BYTES

    async def test_a_slow_server_slows_the_client(self, own: Client, echo: Echo) -> None:
        data = bytes(64 * MIB)
        sent = 0

        async def parts() -> AsyncIterator[bytes]:
            nonlocal sent
            for start in range(0, len(data), CHUNK_BYTES):
                yield data[start : start + CHUNK_BYTES]
                sent = start

        path = "/api/uploads/a?head.pause_after_pieces=2"
        upload = asyncio.create_task(own.post(path, content=parts()))
        stalled = await settled(lambda: sent)
        assert stalled < 32 * MIB, "what nobody reads must not be taken in"
        echo.go_on.set()
        answer = await asyncio.wait_for(upload, PATIENCE_SECONDS)

        assert answer.json()["size_bytes"] == str(len(data))

    async def test_past_the_bound(self, echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(streaming, "MAX_UPLOAD_BYTES", MIB)
        async with grpc_serving(echo) as target, gateway_to(target) as url, client_of(url) as own:
            answer = await own.post("/api/uploads/a", content=in_parts(bytes(2 * MIB)))

        assert answer.status_code == 413
        assert answer.json()["reason"] == "MESSAGE_TOO_LARGE"

    async def test_a_client_that_goes(self, own_url: str, echo: Echo) -> None:
        host, port = own_url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /api/uploads/a HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        writer.write(bytes(50_000))
        await writer.drain()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await echo.heard.wait()
            writer.close()
            await echo.upload_ended.wait()

        assert echo.bytes_heard < int(echo.announced_bytes) == 100_000, "so the server can tell"

    def test_a_body_that_is_no_bytes(self) -> None:
        route = next(r for r in routes_of([echo_file()]) if r.method.name == "Upload")
        wrong = type(route)(route.method, route.verb, route.path, "head", "", primary=True)

        with pytest.raises(ValueError, match="field for bytes"):
            Upload(wrong, None, None, None)  # type: ignore[arg-type]


class TestDownloads:
    async def test_every_byte_arrives(self, own: Client) -> None:
        size = 6 * MIB + 1
        answer = await own.get(f"/api/downloads/f?size_bytes={size}")

        assert answer.status_code == 200
        assert len(answer.content) == size
        assert answer.headers["content-type"] == "text/plain"
        assert answer.headers["content-disposition"] == 'attachment; filename="f"'
        assert "x-secret" not in answer.headers

    async def test_bytes_that_have_no_type(self, own: Client) -> None:
        answer = await own.get("/api/chunks/f?size_bytes=100000")

        assert len(answer.content) == 100_000
        assert answer.headers["content-type"] == "application/octet-stream"

    @pytest.mark.parametrize("path", ["/api/downloads/f", "/api/chunks/f"])
    async def test_an_empty_one(self, own: Client, path: str) -> None:
        answer = await own.get(path)

        assert answer.status_code == 200
        assert answer.content == b""

    async def test_a_slow_client_slows_the_server(self, own_url: str, echo: Echo) -> None:
        size = 64 * MIB
        async with client_of(own_url) as client:
            request = client.build_request("GET", f"/api/downloads/f?size_bytes={size}")
            answer = await client.send(request, stream=True)
            stalled = await settled(lambda: echo.bytes_sent)
            assert stalled < 32 * MIB, "what nobody reads must not be made"
            assert sum([len(part) async for part in answer.aiter_raw()]) == size

    async def test_a_client_that_goes(self, own_url: str, echo: Echo) -> None:
        async with client_of(own_url) as client:
            request = client.build_request("GET", f"/api/downloads/f?size_bytes={640 * MIB}")
            answer = await client.send(request, stream=True)
            await anext(answer.aiter_raw())
            await answer.aclose()

        await asyncio.wait_for(echo.cancelled.wait(), PATIENCE_SECONDS)
        assert echo.bytes_sent < 640 * MIB

    async def test_head_reads_nothing_on(self, own: Client, echo: Echo) -> None:
        answer = await own.head(f"/api/downloads/f?size_bytes={640 * MIB}")

        assert answer.status_code == 200
        await asyncio.wait_for(echo.cancelled.wait(), PATIENCE_SECONDS)
        assert echo.bytes_sent < 640 * MIB

    async def test_a_failure_before_the_first_byte(self, own: Client) -> None:
        answer = await own.get("/api/downloads/f?size_bytes=-1&fail_at_bytes=-1")

        assert answer.status_code == 500
        assert answer.json()["reason"] == "INTERNAL"

    async def test_a_failure_in_the_middle_is_no_end(self, own: Client) -> None:
        with pytest.raises(httpx2.RemoteProtocolError):
            await own.get(f"/api/downloads/f?size_bytes={MIB}&fail_at_bytes={MIB // 2}")


async def settled(value: object) -> int:
    """The value once it has not moved for a while: what flows has stopped."""
    assert callable(value)
    last, same = -1, 0
    async with asyncio.timeout(PATIENCE_SECONDS):
        while same < 20:
            await asyncio.sleep(0.02)
            now = value()
            same = same + 1 if now == last and now > 0 else 0
            last = now
    return int(last)
