"""The connection itself, by raw sockets to a real uvicorn."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gateway.security import SecuritySettings
from gateway.security.connections import MAX_DRAINED_BYTES, MAX_PIPELINED
from tests.gateway.security_host import Host, hosting, read_all, read_until, statuses

SOON = SecuritySettings(
    head_timeout_seconds=0.2,
    body_window_seconds=0.2,
    write_timeout_seconds=0.2,
    idle_timeout_seconds=600,
    max_body_bytes=100_000,
)
"""Time-outs that a test can wait for; an idle connection stays open beyond its patience."""

PATIENT = replace(SOON, head_timeout_seconds=600, body_window_seconds=600)
"""Only sizes end a connection."""

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def problem_of(answer: bytes) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"x-content-type-options: nosniff" in head
    assert b"content-security-policy: default-src 'none'" in head
    assert b"connection: close" in head
    loaded: dict[str, object] = json.loads(body)
    return loaded


async def refusal(host: Host, *parts: bytes) -> dict[str, object]:
    """The one answer to what must be refused before the application sees it."""
    before = len(host.seen.paths)
    answer = await host.exchange(*parts)
    assert len(statuses(answer)) == 1
    assert len(host.seen.paths) == before
    return problem_of(answer)


@pytest.fixture(scope="module")
async def patient() -> AsyncIterator[Host]:
    """One server for all tests that do not wait for time."""
    async with hosting(PATIENT) as host:
        yield host


class TestSmuggling:
    @pytest.mark.parametrize(
        "head",
        [
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5",
            b"Content-Length: 5\r\nContent-Length: 6",
            b"Content-Length: 5\r\nContent-Length: 5",
            b"Content-Length: 5, 5",
            b"Content-Length: +5",
            b"Content-Length: -5",
            b"Content-Length: 0x5",
            b"Content-Length: 99999999999999999999999",
            b"Content-Length : 5",
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding : chunked",
            b"Transfer-Encoding:\r\n chunked",
            b"Transfer-Encoding: \x0bchunked",
            b"Transfer-Encoding: Chunked\t,",
            b"Transfer_Encoding: chunked\r\n X: y",
            b"Host: y",
            b"X: a\rTransfer-Encoding: chunked",
            b"X: a\nTransfer-Encoding: chunked",
            b"X: a\x00b",
            b"X Y: z",
            b": z",
            b"Connection: Upgrade\r\nUpgrade: h2c",
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: websocket",
        ],
    )
    async def test_a_request_that_can_be_read_in_two_ways_is_not_read(
        self, patient: Host, head: bytes
    ) -> None:
        problem = await refusal(patient, POST + head + b"\r\n\r\n" + b"0\r\n\r\n" + SMUGGLED)

        assert problem["status"] == 400
        assert problem["reason"] == "MALFORMED_MESSAGE"

    @pytest.mark.parametrize(
        "request_bytes",
        [
            b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\nHost: x\n\n",
            b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
            b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
            b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ],
    )
    async def test_what_is_not_http_is_not_guessed_at(
        self, patient: Host, request_bytes: bytes
    ) -> None:
        problem = await refusal(patient, request_bytes + SMUGGLED)

        assert problem["status"] == 400

    @pytest.mark.parametrize(
        "body",
        [
            b"-1\r\n\r\n",
            b"fffffffffffffffff\r\n\r\n",
            b"1\na\n0\n\n",
            b"1\r\nabc\r\n0\r\n\r\n",
            b"0x1\r\na\r\n0\r\n\r\n",
            b"1\r\na\r\n0\r\nAuthorization: Bearer smuggled\r\n\r\n",
        ],
    )
    async def test_a_body_in_wrong_chunks_ends_the_connection(
        self, patient: Host, body: bytes
    ) -> None:
        answer = await patient.exchange(CHUNKED + body + SMUGGLED)

        assert statuses(answer) == [400]
        assert "/smuggled" not in patient.seen.paths

    async def test_what_follows_a_body_is_the_next_request(self, patient: Host) -> None:
        answer = await patient.exchange(CHUNKED + b"1;ext=1\r\na\r\n0\r\n\r\n" + GET + LAST)

        assert statuses(answer) == [200, 200, 200]
        assert patient.seen.paths[-3:] == ["/", "/", "/last"]

    async def test_more_requests_at_once_than_may_wait_end_the_connection(
        self, patient: Host
    ) -> None:
        answer = await patient.exchange(GET * (MAX_PIPELINED * 4))

        assert len(statuses(answer)) <= MAX_PIPELINED + 1


class TestSizes:
    async def test_a_long_url_is_refused(self, patient: Host) -> None:
        problem = await refusal(patient, b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")

        assert problem["status"] == 414
        assert problem["metadata"] == {"limit_bytes": "8192"}

    async def test_many_headers_are_refused(self, patient: Host) -> None:
        problem = await refusal(patient, POST + b"A: b\r\n" * 101 + b"\r\n")

        assert problem["status"] == 431

    async def test_a_header_without_end_is_refused_before_it_ends(self, patient: Host) -> None:
        problem = await refusal(patient, POST + b"A: ", b"b" * 40_000)

        assert problem["status"] == 431
        assert problem["reason"] == "MESSAGE_TOO_LARGE"

    async def test_a_body_announced_too_large_is_refused_before_it_is_sent(self) -> None:
        async with hosting(PATIENT) as host, host.open() as (reader, writer):
            writer.write(POST + b"Content-Length: 100001\r\nExpect: 100-continue\r\n\r\n")

            answer = await read_all(reader)

        assert statuses(answer) == [413]
        assert host.seen.paths == []

    async def test_a_body_that_grows_too_large_is_refused_on_its_way(self) -> None:
        piece = b"2710\r\n" + b"x" * 10_000 + b"\r\n"
        async with hosting(PATIENT) as host, host.open() as (reader, writer):
            writer.write(CHUNKED + piece * 11)
            head = await read_until(reader, b"\r\n\r\n")
            writer.write(b"0\r\n\r\n" + LAST)

            rest = await read_all(reader)

        assert statuses(head + rest) == [413, 200]
        assert host.seen.paths == ["/", "/last"]
        assert host.seen.body_bytes <= 100_000

    async def test_a_refused_body_is_not_read_for_ever(self) -> None:
        length = b"Content-Length: %d\r\n\r\n" % (10 * MAX_DRAINED_BYTES)
        async with hosting(PATIENT) as host, host.open() as (reader, writer):
            writer.write(POST + length + b"x" * (2 * MAX_DRAINED_BYTES))

            answer = await read_all(reader)

        assert statuses(answer) in ([413], [])

    async def test_a_body_within_its_limit_passes(self, patient: Host) -> None:
        body = b"Content-Length: 100000\r\nConnection: close\r\n\r\n" + b"x" * 100_000
        answer = await patient.exchange(POST + body)

        assert statuses(answer) == [200]
        assert answer.endswith(b"100000")

    async def test_a_path_may_have_a_limit_of_its_own(self) -> None:
        settings = replace(PATIENT, body_limits=(("/up", 10), ("/upload", 200_000)))
        body = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 150000\r\n\r\n"
        async with hosting(settings) as host:
            taken = await host.exchange(b"POST /upload/1" + body + b"x" * 150_000)
            refused = await host.exchange(b"POST /update" + body + b"x" * 150_000)

        assert (statuses(taken), statuses(refused)) == ([200], [413])

    async def test_chunking_may_not_outgrow_its_body(self, patient: Host) -> None:
        answer = await patient.exchange(CHUNKED + b"1;" + b"e" * 400_000)

        assert statuses(answer) == [400]


class TestTime:
    """The server ends these connections; without its time-outs they would outlive the test."""

    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            (b"", []),
            (b"\r\n", []),
            (b"GE", [408]),
            (b"GET / HTTP/1.1\r\nHost: x\r\nA: b", [408]),
            (GET + b"GET /next HTTP/1.1\r\n", [200, 408]),
        ],
    )
    async def test_a_head_that_does_not_come(self, sent: bytes, expected: list[int]) -> None:
        async with hosting(SOON) as host:
            answer = await host.exchange(sent)

        assert statuses(answer) == expected

    async def test_empty_lines_do_not_keep_a_connection(self) -> None:
        async with hosting(SOON) as host, host.open() as (reader, writer):
            writer.write(GET)
            await read_until(reader, b"\r\n\r\n0")
            writer.write(b"\r\n")

            assert await read_all(reader) == b""

    async def test_a_head_that_comes_drop_by_drop(self) -> None:
        async with hosting(SOON) as host, host.open() as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
            while not reader.at_eof() and not host.is_empty():
                writer.write(b"A: b\r\n")
                await asyncio.sleep(0.02)

            assert statuses(await read_all(reader)) == [408]

    @pytest.mark.parametrize(
        "body", [b"Content-Length: 5000\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc"]
    )
    async def test_a_body_that_does_not_come(self, body: bytes) -> None:
        async with hosting(SOON) as host:
            problem = problem_of(await host.exchange(POST + body))

        assert problem["status"] == 408
        assert problem["reason"] == "DEADLINE_EXCEEDED"

    async def test_an_answer_that_is_not_read(self) -> None:
        async with hosting(SOON) as host, host.open() as (reader, writer):
            transport = writer.transport
            transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
            await host.closed()
            transport.resume_reading()  # type: ignore[attr-defined]

            answer = await read_all(reader)

        assert len(answer) < 1_000 * 65_536
        assert not answer.endswith(b"0\r\n\r\n")


class TestConnections:
    async def test_one_too_many_is_told_so(self) -> None:
        async with hosting(replace(PATIENT, max_connections=2)) as host:
            async with host.open() as (reader, writer), host.open() as (other, second):
                for write, read in ((writer, reader), (second, other)):
                    write.write(GET)
                    await read_until(read, b"\r\n\r\n0")
                problem = problem_of(await host.exchange(b""))
            assert problem["status"] == 503
            await host.closed()
            assert statuses(await host.exchange(LAST)) == [200]

    async def test_one_address_may_not_have_them_all(self) -> None:
        settings = replace(PATIENT, max_connections_per_address=1)
        async with hosting(settings) as host, host.open() as (reader, writer):
            writer.write(GET)
            await read_until(reader, b"\r\n\r\n0")

            assert problem_of(await host.exchange(b""))["reason"] == "OVERLOADED"


class TestFailures:
    async def test_one_before_the_answer_leaves_the_connection_usable(self, patient: Host) -> None:
        answer = await patient.exchange(b"GET /fails HTTP/1.1\r\nHost: x\r\n\r\n" + LAST)

        assert statuses(answer) == [500, 200]
        assert b"secret" not in answer
        assert b"Traceback" not in answer

    async def test_one_amid_the_answer_leaves_it_unfinished(self, patient: Host) -> None:
        answer = await patient.exchange(b"GET /fails-late HTTP/1.1\r\nHost: x\r\n\r\n")

        assert statuses(answer) == [200]
        assert answer.endswith(b"begun\r\n")
        assert b"\r\nserver:" not in answer.lower()
