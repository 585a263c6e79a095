"""Gateways that come and go."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.config import Address, Settings
from gateway.security import SecuritySettings
from gateway.serving import serving
from tests.gateway.echo import UNLIMITED


@asynccontextmanager
async def gateway(
    target: str, port: int = 0, security: SecuritySettings = UNLIMITED
) -> AsyncIterator[str]:
    """A gateway before the server at `target`; its URL."""
    address = Address("127.0.0.1", port)
    settings = Settings(address=address, grpc_target=target, security=security)
    async with serving(settings) as bound:
        yield f"http://{bound}"
