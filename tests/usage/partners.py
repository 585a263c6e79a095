"""Other clients of a server: each with a key of its own."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from zaaz.auth.v1 import auth_service_pb2 as pb

from tests.serving import Served, connected, new_key

USAGE_SCOPES = ("usage.read", "usage.write")


@asynccontextmanager
async def partner(
    served: Served, client_id: str = "", scopes: Sequence[str] = USAGE_SCOPES, **fields: Any
) -> AsyncIterator[Served]:
    """A client of the same server that holds no more than these scopes."""
    created = await served.auth.CreateApiKey(
        pb.CreateApiKeyRequest(
            request_id=new_key(), client_id=client_id or f"p-{new_key()}", scopes=scopes, **fields
        )
    )
    async with connected(served.target, created.key) as other:
        yield other


async def revoke(served: Served, api_key: str) -> None:
    """Ends the key, as its `zaaz_<id>_<secret>` names it."""
    await served.auth.RevokeApiKey(pb.RevokeApiKeyRequest(id=api_key.split("_")[1]))
