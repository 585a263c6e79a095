"""The connection to MongoDB: one client per process, made in app.py."""

from datetime import UTC
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError

from server.mongo.errors import DatabaseUnavailable

SERVER_SELECTION_TIMEOUT_MS = 5_000
CONNECT_TIMEOUT_MS = 5_000
SOCKET_TIMEOUT_MS = 30_000
MAX_POOL_SIZE = 64
POOL_WAIT_TIMEOUT_MS = 5_000
_AUTHENTICATION_FAILED = 18

# What the rules of money rest on: an URL cannot weaken it.
_SAFETY: dict[str, Any] = {
    "tz_aware": True,
    "tzinfo": UTC,
    "w": "majority",
    "journal": True,
    "readPreference": "primary",
    "readConcernLevel": "majority",
    "retryWrites": True,
    "retryReads": True,
}

# What suits most: an URL that says otherwise is followed.
_DEFAULTS: dict[str, Any] = {
    "appName": "zaaz",
    "serverSelectionTimeoutMS": SERVER_SELECTION_TIMEOUT_MS,
    "connectTimeoutMS": CONNECT_TIMEOUT_MS,
    "socketTimeoutMS": SOCKET_TIMEOUT_MS,
    "maxPoolSize": MAX_POOL_SIZE,
    "waitQueueTimeoutMS": POOL_WAIT_TIMEOUT_MS,
}


async def connect(url: str) -> AsyncMongoClient[dict[str, Any]]:
    """A client that has spoken to the database at `url`; the caller closes it.

    Raises DatabaseUnavailable when no primary answers within the server
    selection timeout, when the credentials are refused, or when the database
    is a lone mongod, which has no transactions.
    """
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(url, **_options(url))
    try:
        await _require_transactions(client)
    except BaseException:
        await client.close()
        raise
    return client


def _options(url: str) -> dict[str, Any]:
    said = {name.lower() for name, _ in parse_qsl(urlsplit(url).query)}
    defaults = {name: value for name, value in _DEFAULTS.items() if name.lower() not in said}
    return {**defaults, **_SAFETY}


async def _require_transactions(client: AsyncMongoClient[dict[str, Any]]) -> None:
    try:
        hello = await client.admin.command("hello")
        # `hello` needs no login; this does, where logins are on.
        await client.admin.command(
            {"listDatabases": 1, "nameOnly": True, "authorizedDatabases": True}
        )
    except OperationFailure as error:
        if error.code == _AUTHENTICATION_FAILED:
            raise DatabaseUnavailable("MongoDB refused the user or password of its URL") from error
        raise
    except PyMongoError as error:
        raise DatabaseUnavailable(f"MongoDB does not answer: {error}") from error
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        raise DatabaseUnavailable(
            "MongoDB runs as a lone server, without transactions: start mongod with --replSet"
            " and run rs.initiate() once"
        )
