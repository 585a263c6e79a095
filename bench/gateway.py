"""The REST gateway: a GET through it over a bare JSON endpoint, and what open streams cost."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.bare import PATH, USER_ID
from bench.consume import CALLERS, call_all
from bench.machine import Meter, resident_kibibytes
from bench.pairs import Run, Sides
from bench.processes import BenchError, Served, started
from bench.setting import Bench, Size
from bench.watch import SETTLE_SECONDS

REST_GETS, JSON_GETS = Size(6_000, 10_000), Size(20_000, 30_000)
FIRST_CLIENTS = 100
CLIENTS = FIRST_CLIENTS + 900
"""The gateway takes 1,024 connections of one address."""
OPEN_TOGETHER = 50
END = b"\r\n\r\n"
LENGTH = b"content-length: "


@asynccontextmanager
async def gateway(directory: Path, target: str) -> AsyncIterator[tuple[str, int]]:
    """A gateway's address and process id, before the server at `target`; without limits of rate."""
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("ZAAZ_")},
        "ZAAZ_REST_ADDRESS": "127.0.0.1:0",
        "ZAAZ_GRPC_TARGET": target,
        "ZAAZ_REST_RATE_PER_SECOND": "0",
        "ZAAZ_REST_KEY_RATE_PER_SECOND": "0",
        "ZAAZ_LOG_LEVEL": "WARNING",
    }
    async with started(["gateway"], directory / "gateway.log", environment) as (pid, ready):
        yield ready["rest"], pid


@asynccontextmanager
async def bare(directory: Path, kind: str) -> AsyncIterator[tuple[str, int]]:
    """One of bench.bare's servers: its address and process id."""
    log = directory / f"bare-{kind}.log"
    async with started(["bench.bare", kind], log, os.environ) as (pid, ready):
        yield ready["address"], pid


class Gets:
    """GET of the one wallet that bench.bare has, over connections that are kept."""

    def __init__(self, address: str, api_key: str) -> None:
        self._address = address
        head = f"GET {PATH} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {api_key}\r\n\r\n"
        self._head = head.encode()
        self._free: list[_Connection] = []

    async def prepare(self, operations: int) -> Run:
        """Opens a connection for each caller; servers close those that idled through other runs."""
        self._free = [connection for connection in self._free if connection.is_open]
        host, _, port = self._address.partition(":")
        loop = asyncio.get_running_loop()
        while len(self._free) < CALLERS:
            _, connection = await loop.create_connection(_Connection, host, int(port))
            self._free.append(connection)
        return lambda: call_all(self._get, range(operations))

    async def _get(self, _: int) -> None:
        connection = self._free.pop()
        answer = await connection.ask(self._head)
        self._free.append(connection)
        if not answer.startswith(b"HTTP/1.1 200") or USER_ID.encode() not in answer:
            raise BenchError(answer[:200].decode(errors="replace"))

    def close(self) -> None:
        """Closes them."""
        for connection in self._free:
            connection.close()


class _Connection(asyncio.Protocol):
    """One request at a time, and its whole answer: clients of HTTP cost more than what is asked."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.is_open = True
        self._data = b""
        self._answer: asyncio.Future[bytes] | None = None

    def ask(self, head: bytes) -> "asyncio.Future[bytes]":
        self._data = b""
        if not self.is_open:
            # What is written to it would be lost without a word, and its answer awaited for ever.
            raise BenchError("the connection was closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(head)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(END)
        if end < 0 or self._answer is None:
            return
        start = self._data.index(LENGTH) + len(LENGTH)
        length = int(self._data[start : self._data.index(b"\r\n", start)])
        if len(self._data) >= end + len(END) + length:
            self._answer.set_result(self._data)
            self._answer = None

    def connection_lost(self, _: Exception | None) -> None:
        self.is_open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(BenchError("the connection was closed"))

    def close(self) -> None:
        self._transport.close()


@asynccontextmanager
async def rest_get(bench: Bench) -> AsyncIterator[Sides]:
    """Before a server that does nothing: what is measured is the gateway, not the database."""
    async with (
        bare(bench.directory, "grpc") as (target, wallets),
        gateway(bench.directory, target) as (address, pid),
        bare(bench.directory, "http") as (json_address, json_pid),
    ):
        ours, baseline = (Gets(each, bench.served.api_key) for each in (address, json_address))
        operations = bench.plan.operations(REST_GETS), bench.plan.operations(JSON_GETS)
        pids = {"gateway": pid, "wallets": wallets, "starlette": json_pid}
        try:
            yield Sides(ours, baseline, operations, pids)
        finally:
            ours.close()
            baseline.close()


async def stream_memory(served: Served, users: Sequence[str], directory: Path) -> dict[str, Any]:
    """KiB of resident memory that the gateway has more for each idle client, a wallet each."""
    first, others = users[:FIRST_CLIENTS], users[FIRST_CLIENTS:]
    async with gateway(directory, served.target) as (address, pid):
        meter = Meter({**served.pids, "gateway": pid})
        started_with = resident_kibibytes(pid)
        async with _listening(address, served.api_key, first):
            await asyncio.sleep(SETTLE_SECONDS)
            before = resident_kibibytes(pid)
            async with _listening(address, served.api_key, others):
                await asyncio.sleep(SETTLE_SECONDS)
                after, costs = resident_kibibytes(pid), meter.read()
    return {
        "value": round((after - before) / len(others), 1),
        "unit": "KiB a client",
        "clients": len(users),
        "resident_mib": [round(each / 1_024, 1) for each in (started_with, before, after)],
        **costs,
    }


@asynccontextmanager
async def _listening(address: str, api_key: str, users: Sequence[str]) -> AsyncIterator[None]:
    """A client for each user, which has been told of its wallet."""
    writers: list[asyncio.StreamWriter] = []

    async def open_one(user_id: str) -> None:
        parts = urlsplit(f"http://{address}")
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writers.append(writer)
        head = (
            f"GET /api/user-wallets/{user_id}/watch HTTP/1.1\r\nhost: {address}\r\n"
            f"authorization: Bearer {api_key}\r\n\r\n"
        )
        writer.write(head.encode())
        await reader.readuntil(b"event: snapshot\n")

    try:
        for start in range(0, len(users), OPEN_TOGETHER):
            await asyncio.gather(*map(open_one, users[start : start + OPEN_TOGETHER]))
        yield
    finally:
        for writer in writers:
            writer.close()
