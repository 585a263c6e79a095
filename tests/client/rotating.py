"""What tests of replaced keys and certificates share."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
from zaaz.credits.v1.usage_service_pb2 import IngestUsageRequest, OpenUsageStream
from zaaz_client import (
    UsageStreamSettings,
    WatchSettings,
    ZaazClient,
)

from tests.certificates import Certified
from tests.ledger.calls import PRICE, soon

from .peer import event

CREDITS = 1_000 * PRICE
QUICK = UsageStreamSettings(linger_seconds=0.001, max_backoff_seconds=0.1)
QUICK_WATCH = WatchSettings(max_backoff_seconds=0.1)
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def replace(path: Path, content: bytes | str) -> None:
    """As whoever keeps a secret does: the file is whole at every moment."""
    part = path.with_suffix(".part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.replace(path)


async def until(holds: Callable[[], bool]) -> None:
    async def look() -> None:
        while not holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)

    await soon(look())


def credentials(pair: Certified) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([(pair.key, pair.certificate)])


async def opening() -> AsyncIterator[IngestUsageRequest]:
    yield IngestUsageRequest(open=OpenUsageStream(writer_id="w"))


async def deliver(client: ZaazClient, writer_id: str) -> None:
    settings = UsageStreamSettings(open_timeout_seconds=1)
    async with client, client.usage_stream(writer_id, settings=settings) as stream:
        await stream.send(event(0))
