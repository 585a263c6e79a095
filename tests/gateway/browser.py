"""Chromium without a window, and the origin of the page that it shows.

The page tells the test what happens by POST to its own origin: no driver is needed.
"""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "ZAAZ_TEST_CHROMIUM"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
)
END_SECONDS = 20.0


def chromium() -> str:
    """Where it is. Skips the test without it, but for root, who has had it installed."""
    found = os.environ.get(VARIABLE) or shutil.which("chromium")
    if found:
        return found
    text = f"no chromium: install Debian's, or set {VARIABLE} to one"
    if os.geteuid() == 0:
        pytest.fail(text)
    pytest.skip(text)


class Origin:
    """Serves one page at every path, and hears what it reports."""

    def __init__(self, html: str) -> None:
        self._html = html.encode()
        self.url = ""
        self.reports: list[dict[str, Any]] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, and the end of its connection."""
        # Browsers open connections that they never use.
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._hear(reader)
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n"
                b"content-length: %d\r\n\r\n%s" % (len(self._html), self._html)
            )
            await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        _, is_report, rest = head.partition("content-length:")
        if is_report:
            body = await reader.readexactly(int(rest.split("\r\n")[0]))
            self.reports.append(json.loads(body))


@asynccontextmanager
async def origin(html: str) -> AsyncIterator[Origin]:
    """A page's own origin, other than the API's."""
    page = Origin(html)
    server = await asyncio.start_server(page.answer, "127.0.0.1", 0)
    async with server:
        page.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield page


@asynccontextmanager
async def showing(url: str, directory: Path) -> AsyncIterator[None]:
    """A browser that shows this page, with nothing of another's in it."""
    with (directory / "chromium.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(chromium(), *FLAGS, f"--user-data-dir={directory / 'profile'}", url),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.wait_for(process.wait(), END_SECONDS)
