"""Requests as they stand, for what an HTTP client would mend before sending."""

import asyncio


async def raw_get(url: str, target: str) -> tuple[int, bytes]:
    """A GET whose target no client has tidied."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(20):
        whole = await reader.read()
    writer.close()
    head, _, body = whole.partition(b"\r\n\r\n")
    return int(head.split()[1]), body
