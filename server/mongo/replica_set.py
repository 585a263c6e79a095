"""Makes the embedded mongod a replica set of one, so that it has transactions."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError

from server.mongo.errors import EmbeddedMongodFailed

PRIMARY_TIMEOUT_SECONDS = 60
HELLO_WAIT_MS = 1_000
CONFIG_POLL_SECONDS = 0.02
_ALREADY_INITIALIZED = 23
_NOT_YET_INITIALIZED = 94


def url_of(socket: Path, replica_set: str) -> str:
    """The connection string of the embedded mongod."""
    return f"mongodb://{quote(str(socket), safe='')}/?replicaSet={replica_set}"


async def make_primary(socket: Path, replica_set: str) -> None:
    """Initiate the set, or move it to `socket`, and return when it takes writes.

    EmbeddedMongodFailed when it takes none within PRIMARY_TIMEOUT_SECONDS.
    """
    url = f"mongodb://{quote(str(socket), safe='')}/?directConnection=true"
    try:
        async with AsyncMongoClient[dict[str, Any]](url, appName="zaaz-embedded") as client:
            async with asyncio.timeout(PRIMARY_TIMEOUT_SECONDS):
                await _configure(client, str(socket), replica_set)
                await _until_primary(client)
    except (PyMongoError, TimeoutError) as error:
        raise EmbeddedMongodFailed(f"mongod does not become primary: {error!r}") from error


async def _until_primary(client: AsyncMongoClient[dict[str, Any]]) -> None:
    hello = await client.admin.command("hello")
    while not hello["isWritablePrimary"]:
        # Answered when something has changed since: waiting without polling.
        hello = await client.admin.command(
            {
                "hello": 1,
                "topologyVersion": hello["topologyVersion"],
                "maxAwaitTimeMS": HELLO_WAIT_MS,
            }
        )


async def _configure(client: AsyncMongoClient[dict[str, Any]], host: str, replica_set: str) -> None:
    config = await _stored_config(client)
    while config is None and not await _initiated(client, host, replica_set):
        # It listens before it has loaded the config that it stored.
        await asyncio.sleep(CONFIG_POLL_SECONDS)
        config = await _stored_config(client)
    if config is not None and config["members"][0]["host"] != host:
        # The data directory has moved. The set knows itself only by its old
        # address, so there is no majority to ask: it has to be forced.
        config["members"][0]["host"] = host
        config["version"] += 1
        await client.admin.command({"replSetReconfig": config, "force": True})


async def _stored_config(client: AsyncMongoClient[dict[str, Any]]) -> dict[str, Any] | None:
    try:
        config: dict[str, Any] = (await client.admin.command("replSetGetConfig"))["config"]
    except OperationFailure as error:
        if error.code != _NOT_YET_INITIALIZED:
            raise
        return None
    return config


async def _initiated(client: AsyncMongoClient[dict[str, Any]], host: str, replica_set: str) -> bool:
    """Initiate the set. False when there is one after all."""
    members = [{"_id": 0, "host": host}]
    try:
        await client.admin.command({"replSetInitiate": {"_id": replica_set, "members": members}})
    except OperationFailure as error:
        if error.code != _ALREADY_INITIALIZED:
            raise
        return False
    return True
