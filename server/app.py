"""The composition root: the one place that knows every class, and what is closed in which order.

    embedded mongod -> client -> collections -> prices, keys -> ledger -> servicers -> gRPC

Everything lives in one AsyncExitStack, so it ends in the opposite order: first
the callers are told, then the loops stop, then the database is let go.
"""

import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from zaaz.auth.v1.auth_service_pb2_grpc import add_AuthServiceServicer_to_server
from zaaz.catalog.v1.catalog_service_pb2_grpc import add_CatalogServiceServicer_to_server
from zaaz.credits.v1 import usage_service_pb2
from zaaz.credits.v1.credits_process_service_pb2_grpc import (
    add_CreditsProcessServiceServicer_to_server,
)
from zaaz.credits.v1.credits_service_pb2_grpc import add_CreditsServiceServicer_to_server
from zaaz.credits.v1.feature_usage_log_pb2 import FeatureUsageEvent
from zaaz.credits.v1.usage_service_pb2_grpc import add_UsageServiceServicer_to_server
from zaaz.wallet.v1.statement_service_pb2_grpc import add_StatementServiceServicer_to_server
from zaaz.wallet.v1.wallet_service_pb2_grpc import add_WalletServiceServicer_to_server

from server.auth.service import AuthService
from server.auth.servicer import AuthServicer
from server.auth.store import COLLECTIONS as AUTH_COLLECTIONS
from server.catalog.marks import COLLECTIONS as CATALOG_COLLECTIONS
from server.catalog.resources import FEATURE_ENDPOINTS, FEATURES
from server.catalog.servicer import CatalogServicer
from server.catalog.source import EndpointBookSource
from server.catalog.store import CatalogStore
from server.config import MIN_SECRET_CHARACTERS, Settings
from server.credits.entitlement import Entitlements
from server.credits.events import EventReader
from server.credits.explanation import Explainer
from server.credits.feature_usage.reader import FeatureUsageReader
from server.credits.feature_usage.resources import FEATURE_USAGE_LOGS
from server.credits.feature_usage.service import FeatureUsageLogs
from server.credits.feature_usage.store import FeatureUsageStore
from server.credits.prices.revisions import COLLECTIONS as PRICE_COLLECTIONS
from server.credits.prices.seeding import published, seed
from server.credits.prices.source import PriceBookSource
from server.credits.prices.store import PriceStore
from server.credits.pricing import Pricing
from server.credits.process_servicer import CreditsProcessServicer
from server.credits.rejections import RejectionRoom
from server.credits.resources import RESOURCES as PRICE_RESOURCES
from server.credits.servicer import CreditsServicer
from server.credits.usage_servicer import UsageServicer
from server.kernel.clock import Clock, system_clock
from server.kernel.errors import DomainError, Reason
from server.kernel.paging import PageTokens
from server.kernel.principal import ADMIN
from server.kernel.tasks import Background
from server.ledger.alerts import Alert
from server.ledger.committer import Committer
from server.ledger.hold_service import HoldLedger
from server.ledger.metrics import LedgerMetrics
from server.ledger.reader import LedgerReader
from server.ledger.service import Ledger
from server.ledger.statements import StatementReader
from server.ledger.store import COLLECTIONS as LEDGER_COLLECTIONS
from server.ledger.store import (
    WALLET_ALERTS,
    WALLET_CHANGED,
    LedgerStore,
    OutboxDocument,
    alert_document,
)
from server.ledger.trial_balance import TrialBalance
from server.messaging.consumers import Consumers
from server.messaging.dispatcher import Dispatcher
from server.messaging.local import LocalBus
from server.messaging.outbox import OUTBOX, Outbox
from server.messaging.store import COLLECTIONS as MESSAGING_COLLECTIONS
from server.mongo.client import connect
from server.mongo.database import Database
from server.mongo.embedded import EmbeddedMongod
from server.mongo.errors import is_unavailable
from server.realtime.local import LocalRealtime
from server.realtime.port import Realtime
from server.realtime.wallet_changes import CONSUMER as REALTIME_CONSUMER
from server.realtime.wallet_changes import WalletChanges, wallet_channel
from server.resources.engine import Resources
from server.resources.table import COLLECTIONS as RESOURCE_COLLECTIONS
from server.resources.table import collections
from server.rpc.address import Address, parse_address
from server.rpc.drain import Drain
from server.rpc.interceptor import Edge
from server.rpc.logs import EventLog
from server.rpc.server import CannotServeError, RpcServer, Tls
from server.rpc.telemetry import Telemetry
from server.rpc.validation import warm
from server.wallet.alerts import COLLECTIONS as ALERT_COLLECTIONS
from server.wallet.alerts import CONSUMER as ALERTS_CONSUMER
from server.wallet.alerts import WalletAlerts
from server.wallet.resume_tokens import ResumeTokens
from server.wallet.servicer import WalletServicer
from server.wallet.signing import Signer
from server.wallet.statement_servicer import StatementServicer
from server.wallet.watches import WalletWatches
from server.workers.expiry import ExpiryWorker
from server.workers.lease import COLLECTIONS as LEASE_COLLECTIONS
from server.workers.lease import Lease

LOCAL_CLIENT = "local"
"""Whose key `make run` makes."""

RESOURCES = (*PRICE_RESOURCES, FEATURES, FEATURE_ENDPOINTS, FEATURE_USAGE_LOGS)
"""All declared resources: who refers to whom is read from them."""

COLLECTIONS = (
    *LEDGER_COLLECTIONS,
    *PRICE_COLLECTIONS,
    *CATALOG_COLLECTIONS,
    *RESOURCE_COLLECTIONS,
    *(collection for resource in RESOURCES for collection in collections(resource)),
    *AUTH_COLLECTIONS,
    *MESSAGING_COLLECTIONS,
    *ALERT_COLLECTIONS,
    *LEASE_COLLECTIONS,
)


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
        foundation = _Foundation(settings, database, clock, background, drain, telemetry)
        realtime = await _add_services(rpc, auth, foundation)
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


class _Foundation(NamedTuple):
    """What the services stand on."""

    settings: Settings
    database: Database
    clock: Clock
    background: Background
    drain: Drain
    telemetry: Telemetry


async def _add_services(rpc: RpcServer, auth: AuthService, foundation: _Foundation) -> Realtime:
    settings, database, clock, background, drain, telemetry = foundation
    prices = await _prices(database, clock)
    consumers, realtime = Consumers(), LocalRealtime()
    consumers.add(REALTIME_CONSUMER, [WALLET_CHANGED], WalletChanges(realtime).handle)
    dispatcher = Dispatcher(database, consumers, clock)
    outbox = Outbox(consumers, clock)
    alerts = WalletAlerts(
        database, _AlertBus(LocalBus(database, consumers, outbox, dispatcher)), clock
    )
    consumers.add(ALERTS_CONSUMER, [WALLET_ALERTS], alerts.handle)
    store = LedgerStore(database, _Announcer(outbox, dispatcher))
    committer = Committer(store, clock, LedgerMetrics(telemetry.metrics.registry))
    ledger = Ledger(committer, store, clock)
    reader = LedgerReader(database, clock)
    tokens = PageTokens(settings.secret)
    catalog = EndpointBookSource(CatalogStore(database))
    await catalog.refresh()
    resources = Resources(database, clock, tokens, RESOURCES)
    resources.on_change(catalog.changed, FEATURES, FEATURE_ENDPOINTS)
    resources.on_change(prices.changed, *PRICE_RESOURCES)
    pricing = Pricing(lambda: prices.book, lambda: catalog.book)
    holds = HoldLedger(committer, reader, clock)
    events = EventReader(pricing, holds, clock)
    room = RejectionRoom(reader, clock)
    rpc.add(add_AuthServiceServicer_to_server, AuthServicer(auth, tokens))
    watches = WalletWatches(
        store,
        reader.as_of_now,
        lambda user_id, heard: realtime.listen(wallet_channel(user_id), lambda _: heard()),
        ResumeTokens(tokens, clock),
        clock,
    )
    wallets = WalletServicer(ledger, reader, watches, alerts, tokens, clock)
    rpc.add(add_WalletServiceServicer_to_server, wallets)
    statements = StatementServicer(
        StatementReader(database, reader),
        TrialBalance(database),
        Signer(settings.secret),
        tokens,
        clock,
    )
    rpc.add(add_StatementServiceServicer_to_server, statements)
    credits_servicer = CreditsServicer(ledger, reader, pricing, resources, published, tokens, clock)
    rpc.add(add_CatalogServiceServicer_to_server, CatalogServicer(resources), complete=True)
    rpc.add(add_CreditsServiceServicer_to_server, credits_servicer, complete=True)
    process = CreditsProcessServicer(
        holds,
        reader,
        Entitlements(
            pricing,
            lambda value: catalog.book.find(value),
            lambda value: prices.book.is_active(value),
        ),
        Explainer(reader, pricing, lambda: prices.book, lambda: catalog.book),
        tokens,
        clock,
    )
    rpc.add(add_CreditsProcessServiceServicer_to_server, process)
    reading = FeatureUsageReader(lambda value: catalog.book.find(value), clock)
    logs = FeatureUsageLogs(reading, FeatureUsageStore(database), clock)
    usage = UsageServicer(ledger, reader, events, logs, room, resources, tokens, drain.started)
    rpc.add(add_UsageServiceServicer_to_server, usage, complete=True)
    warm(
        [
            usage_service_pb2.UsageFrame(
                events=[usage_service_pb2.UsageEvent()], feature_events=[FeatureUsageEvent()]
            )
        ]
    )
    lease = Lease(database, "expiry", clock)
    worker = ExpiryWorker(ledger, reader, alerts, lease, clock, settings.expiry_notice_days)
    background.start("expiries", worker.run())
    background.start("prices", prices.run())
    background.start("catalog", catalog.run())
    background.start("keys", auth.run())
    background.start("messages", dispatcher.run())
    background.start("ledger", committer.run())
    background.start("watched wallets", watches.read())
    background.start("watched versions", watches.sweep())
    background.start("watches' end", watches.end_with(drain.started))
    return realtime


class _AlertBus:
    """Alerts that no transaction brought, on the topic of those that one did."""

    def __init__(self, bus: LocalBus) -> None:
        self._bus = bus

    async def publish(self, alerts: Sequence[Alert]) -> None:
        payload = {"alerts": [alert_document(alert) for alert in alerts]}
        await self._bus.publish(WALLET_ALERTS, "", payload)


class _Announcer:
    """The ledger's port to the outbox."""

    def __init__(self, outbox: Outbox, dispatcher: Dispatcher) -> None:
        self._outbox = outbox
        self._dispatcher = dispatcher

    def document(self, topic: str, payload: dict[str, Any]) -> OutboxDocument | None:
        row = self._outbox.document(topic, payload)
        return None if row is None else OutboxDocument(OUTBOX, row)

    def committed(self) -> None:
        self._dispatcher.wake()


async def _prices(database: Database, clock: Clock) -> PriceBookSource:
    store = PriceStore(database)
    if not await store.is_seeded():
        await seed(store, clock)
    source = PriceBookSource(store)
    await source.refresh()
    return source


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


def _tls(settings: Settings) -> Tls | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Tls(settings.tls_cert.read_bytes(), settings.tls_key.read_bytes())


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
