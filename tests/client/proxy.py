"""A TCP proxy that cuts connections after a given number of bytes."""

import asyncio
from collections.abc import Iterator


class CuttingProxy:
    """Listens on a port of its own; `cuts` has the bytes that each connection lives for."""

    def __init__(self, port: int, cuts: Iterator[int]) -> None:
        self._to_port = port
        self._cuts = cuts
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.cut_connections = 0

    async def __aenter__(self) -> "CuttingProxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut_all()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def target(self) -> str:
        assert self._server is not None
        return "{}:{}".format(*self._server.sockets[0].getsockname())

    def cut_all(self) -> None:
        """Break every connection there is."""
        for end in self._ends:
            end.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        upstream = await asyncio.open_connection("127.0.0.1", self._to_port)
        ends = {writer, upstream[1]}
        self._ends |= ends
        remaining = [next(self._cuts, 1 << 60)]
        ways = [
            asyncio.create_task(self._copy(reader, upstream[1], remaining)),
            asyncio.create_task(self._copy(upstream[0], writer, remaining)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in ends:
                end.transport.abort()
            self._ends -= ends
            self.cut_connections += remaining[0] <= 0

    async def _copy(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, remaining: list[int]
    ) -> None:
        while data := await source.read(4096):
            sink.write(data[: remaining[0]])
            remaining[0] -= len(data)
            if remaining[0] <= 0:
                return
