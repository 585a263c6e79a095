"""GETs over connections that are kept, as long as the server keeps them."""

import asyncio

import pytest

from bench.bare import USER_ID
from bench.gateway import Gets
from bench.processes import BenchError

BODY = USER_ID.encode()
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Idle:
    """A server that answers, until it closes every connection."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(ANSWER)

    async def close_all(self) -> None:
        for writer in self.writers:
            writer.close()
            await writer.wait_closed()


async def test_connections_that_were_closed_are_opened_anew_before_a_run() -> None:
    idle = Idle()
    async with (
        asyncio.timeout(20),
        await asyncio.start_server(idle.answer, "127.0.0.1", 0) as server,
    ):
        host, port = server.sockets[0].getsockname()
        gets = Gets(f"{host}:{port}", "a key")
        run = await gets.prepare(100)
        assert len(await run()) == 100
        run = await gets.prepare(100)
        await idle.close_all()
        with pytest.raises(BaseExceptionGroup) as caught:
            await run()
        assert caught.group_contains(BenchError, match="was closed")
        assert len(await (await gets.prepare(100))()) == 100
        gets.close()
