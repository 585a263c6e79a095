"""The gateway on a real port: before the real server, and before one that echoes."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from gateway.config import Address, Settings
from gateway.serving import serving
from tests.gateway.echo import UNLIMITED, Echo, client_of, gateway_to, grpc_serving
from tests.run.command import Command, free_port
from tests.serving import SECRET, Served


@pytest.fixture(scope="session")
async def rest(served: Served) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the gateway before `served`, with an admin's key."""
    settings = Settings(
        address=Address("127.0.0.1", 0), grpc_target=served.target, security=UNLIMITED
    )
    async with serving(settings) as address, client_of(f"http://{address}") as client:
        client.headers["authorization"] = f"Bearer {served.api_key}"
        yield client


@pytest.fixture(scope="session")
async def echo_url() -> AsyncIterator[str]:
    """The gateway before a service that echoes."""
    async with grpc_serving(Echo()) as target, gateway_to(target) as url:
        yield url


@pytest.fixture(scope="session")
async def echoed(echo_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the gateway before that service."""
    async with client_of(echo_url) as client:
        yield client


@pytest.fixture
async def echo() -> Echo:
    """A service of the test's own, to look into."""
    return Echo()


@pytest.fixture
async def own_url(echo: Echo) -> AsyncIterator[str]:
    """The gateway before `echo`."""
    async with grpc_serving(echo) as target, gateway_to(target) as url:
        yield url


@pytest.fixture
async def own(own_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the gateway before `echo`."""
    async with client_of(own_url) as client:
        yield client


@pytest.fixture
async def mortal(served: Served, mongo_url: str, tmp_path: Path) -> AsyncIterator[Command]:
    """A second server on `served`'s database: it only reads, so it leaves no locks when killed."""
    server = Command(
        tmp_path / "data",
        tmp_path / "stderr",
        grpc_address=f"127.0.0.1:{free_port()}",
        mongo_url=mongo_url,
        mongo_database="test_served",
        secret=SECRET,
    )
    await server.start()
    yield server
    await server.clean_up()
