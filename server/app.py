"""The composition root: what is opened and closed in which order. `composition` has the services.

    embedded mongod -> client -> collections -> prices, keys -> ledger -> servicers -> gRPC

Everything lives in one AsyncExitStack, so it ends in the opposite order: first
the callers are told, then the loops stop, then the database is let go.
"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from server.auth.service import AuthService
from server.composition import COLLECTIONS, Foundation, add_services
from server.config import MIN_SECRET_CHARACTERS, Settings
from server.kernel.clock import Clock, system_clock
from server.kernel.errors import DomainError, Reason
from server.kernel.principal import ADMIN
from server.kernel.tasks import Background
from server.mongo.client import connect
from server.mongo.database import Database
from server.mongo.embedded import EmbeddedMongod
from server.mongo.errors import is_unavailable
from server.realtime.port import Realtime
from server.rpc.address import Address, parse_address
from server.rpc.drain import Drain
from server.rpc.edge import Edge
from server.rpc.logs import EventLog
from server.rpc.server import CannotServeError, RpcServer, TlsFiles
from server.rpc.telemetry import Telemetry

LOCAL_CLIENT = "local"
"""Whose key `make run` makes."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves. `api_key` is the local admin key, on an embedded database only."""

    address: Address
    metrics_address: Address | None
    api_key: str
    background: Background
    realtime: Realtime


@asynccontextmanager
async def running(
    settings: Settings, log: EventLog, clock: Clock = system_clock
) -> AsyncIterator[Running]:
    """Serves until the block is left.

    Raises CannotServeError, EmbeddedMongodFailed, IndexConflict and
    DatabaseUnavailable, each saying what helps.
    """
    async with AsyncExitStack() as stack:
        embedded = None if settings.mongo_url else EmbeddedMongod(settings.data_dir / "mongo")
        database = await _open_database(stack, settings, embedded)
        if embedded is not None:
            settings = _with_local_secret(settings)
        auth = AuthService(database, settings.secret, clock)
        api_key = await _local_key(auth, settings) if embedded is not None else ""
        background = Background()
        stack.push_async_callback(background.stop)
        drain, telemetry = Drain(), Telemetry(log)
        rpc = RpcServer(
            parse_address(settings.grpc_address),
            Edge(auth, _translate, drain, telemetry),
            tls=_tls(settings),
            plaintext=settings.plaintext,
            reflection_mode=settings.reflection,
            check=lambda: _is_healthy(database, embedded),
        )
        foundation = Foundation(settings, database, clock, background, drain, telemetry)
        realtime = await add_services(rpc, auth, foundation)
        metrics_address = None
        if settings.metrics_address:
            metrics_address, stop = telemetry.serve(parse_address(settings.metrics_address))
            stack.callback(stop)
        address = await rpc.start()
        stack.push_async_callback(rpc.stop)
        yield Running(address, metrics_address, api_key, background, realtime)


@asynccontextmanager
async def opened_database(settings: Settings) -> AsyncIterator[tuple[Settings, Database]]:
    """The database alone, prepared, for commands that do not serve; and the settings completed."""
    async with AsyncExitStack() as stack:
        embedded = None if settings.mongo_url else EmbeddedMongod(settings.data_dir / "mongo")
        database = await _open_database(stack, settings, embedded)
        yield settings if embedded is None else _with_local_secret(settings), database


async def _open_database(
    stack: AsyncExitStack, settings: Settings, embedded: EmbeddedMongod | None
) -> Database:
    url = settings.mongo_url
    if embedded is not None:
        url = await embedded.start()
        stack.push_async_callback(embedded.stop)
    client = await connect(url)
    stack.push_async_callback(client.close)
    database = Database(client, settings.mongo_database)
    await database.prepare(COLLECTIONS)
    return database


def _translate(error: BaseException) -> DomainError | None:
    """What the domains' stores let through of the database's own errors."""
    if is_unavailable(error):
        return DomainError(
            Reason.DEPENDENCY_UNAVAILABLE,
            "the database cannot be reached",
            {"dependency": "mongodb"},
        )
    return None


async def _is_healthy(database: Database, embedded: EmbeddedMongod | None) -> bool:
    if embedded is not None and not embedded.healthy:
        return False
    await database.ping()
    return True


def _tls(settings: Settings) -> TlsFiles | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def _with_local_secret(settings: Settings) -> Settings:
    """The secret in the data directory, made on first run, unless one is set.

    Only for the owner of the directory: two servers that start at once would
    make two, and one of them would sign with what is not kept. CannotServeError
    for a file that was spoilt: what it signed has to be given up knowingly.
    """
    if settings.secret:
        return settings
    path = settings.data_dir / "secret"
    if not path.exists():
        _write_private(path, secrets.token_hex(32))
    secret = path.read_text().strip()
    if len(secret) < MIN_SECRET_CHARACTERS:
        raise CannotServeError(
            f"{path} holds no secret of {MIN_SECRET_CHARACTERS} characters: put it back, or"
            " remove it to have a new one made"
        )
    return replace(settings, secret=secret)


async def _local_key(auth: AuthService, settings: Settings) -> str:
    """The admin key in the data directory; a new one when it is missing or no longer good."""
    path = settings.data_dir / "admin.key"
    if path.exists():
        key = path.read_text().strip()
        try:
            await auth.authenticate(key)
        except DomainError as error:
            if error.reason is Reason.DEPENDENCY_UNAVAILABLE:
                raise
        else:
            return key
    key = (await auth.create_first_key(LOCAL_CLIENT, (ADMIN,), "made by the first run")).key
    _write_private(path, key)
    return key


def _write_private(path: Path, text: str) -> None:
    """Mode 0600 from its first byte, and whole or not at all, a power cut included."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600, exist_ok=False)
    with part.open("w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
