import logging
from collections.abc import AsyncIterator

import pytest
from zaaz_client import ZaazClient

from tests.serving import Served

from .bank import Bank
from .peer import KEY, Peer


@pytest.fixture(autouse=True)
def warnings_are_heard(caplog: pytest.LogCaptureFixture) -> None:
    """Servers that other tests have left running may want less of all loggers."""
    caplog.set_level(logging.WARNING, "zaaz_client")


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """A scripted server on a port of its own."""
    served = Peer()  # type: ignore[abstract]
    await served.start()
    yield served
    served.gate.set()
    await served.stop()


@pytest.fixture
async def bank(peer: Peer) -> Bank:
    """Wallets and books on the same server."""
    books = Bank(peer)
    await peer.stop()
    peer.services.append(books.add_to)
    await peer.start()
    return books


@pytest.fixture
async def client(peer: Peer) -> AsyncIterator[ZaazClient]:
    async with ZaazClient(peer.target, KEY) as connected:
        yield connected


@pytest.fixture
async def partner(served: Served) -> AsyncIterator[ZaazClient]:
    async with ZaazClient(served.target, served.api_key) as client:
        yield client


@pytest.fixture
async def timed(clocked: Served) -> AsyncIterator[ZaazClient]:
    """On a server whose clock the test moves."""
    async with ZaazClient(clocked.target, clocked.api_key) as client:
        yield client
