"""Which services there are, what each of them is given, and which loops run beside them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from zaaz.auth.v1.auth_service_pb2_grpc import add_AuthServiceServicer_to_server
from zaaz.catalog.v1.catalog_service_pb2_grpc import add_CatalogServiceServicer_to_server
from zaaz.catalog.v1.offer_service_pb2_grpc import add_OfferServiceServicer_to_server
from zaaz.credits.v1 import usage_service_pb2
from zaaz.credits.v1.credits_process_service_pb2_grpc import (
    add_CreditsProcessServiceServicer_to_server,
)
from zaaz.credits.v1.credits_service_pb2_grpc import add_CreditsServiceServicer_to_server
from zaaz.credits.v1.feature_usage_log_pb2 import FeatureUsageEvent
from zaaz.credits.v1.usage_service_pb2_grpc import add_UsageServiceServicer_to_server
from zaaz.subscriptions.v1.subscription_service_pb2_grpc import (
    add_SubscriptionServiceServicer_to_server,
)
from zaaz.wallet.v1.statement_service_pb2_grpc import add_StatementServiceServicer_to_server
from zaaz.wallet.v1.wallet_service_pb2_grpc import add_WalletServiceServicer_to_server

from server.auth.service import AuthService
from server.auth.servicer import AuthServicer
from server.auth.store import COLLECTIONS as AUTH_COLLECTIONS
from server.catalog.inclusions import Inclusions
from server.catalog.marks import COLLECTIONS as CATALOG_COLLECTIONS
from server.catalog.offers.coupon_use import CouponUse
from server.catalog.offers.servicer import OfferServicer
from server.catalog.offers.store import COLLECTIONS as OFFER_COLLECTIONS
from server.catalog.packages.resources import PACKAGE_FEATURES, PACKAGES
from server.catalog.packages.resources import RESOURCES as PACKAGE_RESOURCES
from server.catalog.packages.sold import SoldPackages
from server.catalog.popups.store import COLLECTIONS as POPUP_COLLECTIONS
from server.catalog.popups.store import PopupStore
from server.catalog.resources import FEATURE_ENDPOINTS, FEATURES
from server.catalog.servicer import CatalogServicer
from server.catalog.source import EndpointBookSource
from server.catalog.store import CatalogStore
from server.config import Settings
from server.credits.entitlement import Entitlements
from server.credits.events import EventReader
from server.credits.explanation import Explainer
from server.credits.feature_usage.reader import FeatureUsageReader
from server.credits.feature_usage.resources import FEATURE_USAGE_LOGS
from server.credits.feature_usage.service import FeatureUsageLogs
from server.credits.feature_usage.store import FeatureUsageStore
from server.credits.freshness import Freshness
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
from server.demo import begin_with
from server.kernel.clock import Clock
from server.kernel.paging import PageTokens
from server.kernel.tasks import Background
from server.ledger.alerts import Alert
from server.ledger.committer import Committer
from server.ledger.hold_service import HoldLedger
from server.ledger.metrics import LedgerMetrics
from server.ledger.package_service import PackageLedger
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
from server.mongo.database import Database
from server.realtime.local import LocalRealtime
from server.realtime.port import Realtime
from server.realtime.wallet_changes import CONSUMER as REALTIME_CONSUMER
from server.realtime.wallet_changes import WalletChanges, wallet_channel
from server.resources.engine import Resources
from server.resources.table import COLLECTIONS as RESOURCE_COLLECTIONS
from server.resources.table import collections
from server.rpc.drain import Drain
from server.rpc.server import RpcServer
from server.rpc.telemetry import Telemetry
from server.rpc.validation import warm
from server.subscriptions.resources import PACKAGE_TRANSACTIONS
from server.subscriptions.servicer import SubscriptionServicer
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

RESOURCES = (
    *PRICE_RESOURCES,
    FEATURES,
    FEATURE_ENDPOINTS,
    *PACKAGE_RESOURCES,
    PACKAGE_TRANSACTIONS,
    FEATURE_USAGE_LOGS,
)
"""All declared resources: who refers to whom is read from them."""

COLLECTIONS = (
    *LEDGER_COLLECTIONS,
    *PRICE_COLLECTIONS,
    *CATALOG_COLLECTIONS,
    *OFFER_COLLECTIONS,
    *POPUP_COLLECTIONS,
    *RESOURCE_COLLECTIONS,
    *(collection for resource in RESOURCES for collection in collections(resource)),
    *AUTH_COLLECTIONS,
    *MESSAGING_COLLECTIONS,
    *ALERT_COLLECTIONS,
    *LEASE_COLLECTIONS,
)


class Foundation(NamedTuple):
    """What the services stand on."""

    settings: Settings
    database: Database
    clock: Clock
    background: Background
    drain: Drain
    telemetry: Telemetry


class _Messages(NamedTuple):
    """What tells others of what happened."""

    outbox: Outbox
    dispatcher: Dispatcher
    realtime: LocalRealtime
    alerts: WalletAlerts


class _Ledgers(NamedTuple):
    """What moves credits, and what reads of it."""

    committer: Committer
    store: LedgerStore
    ledger: Ledger
    holds: HoldLedger
    reader: LedgerReader


class _Books(NamedTuple):
    """What is in force, in memory and kept fresh."""

    prices: PriceBookSource
    catalog: EndpointBookSource
    inclusions: Inclusions
    pricing: Pricing
    freshness: Freshness


async def add_services(rpc: RpcServer, auth: AuthService, foundation: Foundation) -> Realtime:
    """Adds every service to the server and starts their loops."""
    tokens = PageTokens(foundation.settings.secret)
    messages = _messages(foundation)
    ledgers = _ledgers(foundation, messages)
    books = await _books(foundation)
    resources = Resources(foundation.database, foundation.clock, tokens, RESOURCES)
    booked = (FEATURES, FEATURE_ENDPOINTS, PACKAGES, PACKAGE_FEATURES)
    resources.on_change(books.catalog.changed, *booked)
    resources.on_change(books.prices.changed, *PRICE_RESOURCES)
    settings = foundation.settings
    if settings.demo_catalog is not None and not settings.mongo_url:
        store = CatalogStore(foundation.database)
        await begin_with(resources, store, settings.demo_catalog)
    rpc.add(add_AuthServiceServicer_to_server, AuthServicer(auth, tokens), complete=True)
    catalog = CatalogServicer(resources, PopupStore(foundation.database), foundation.clock)
    rpc.add(add_CatalogServiceServicer_to_server, catalog, complete=True)
    _add_wallets(rpc, foundation, messages, ledgers, tokens)
    _add_credits(rpc, foundation, ledgers, books, resources, tokens)
    _add_usage(rpc, foundation, ledgers, books, resources, tokens)
    _add_subscriptions(rpc, foundation, ledgers, resources)
    offers = OfferServicer(foundation.database, ledgers.ledger, ledgers.reader, foundation.clock)
    rpc.add(add_OfferServiceServicer_to_server, offers, complete=True)
    foundation.background.start("keys", auth.run())
    _start_expiries(foundation, messages, ledgers)
    return messages.realtime


def _messages(foundation: Foundation) -> _Messages:
    _, database, clock, background, _, _ = foundation
    consumers, realtime = Consumers(), LocalRealtime()
    dispatcher = Dispatcher(database, consumers, clock)
    outbox = Outbox(consumers, clock)
    bus = LocalBus(database, consumers, outbox, dispatcher)
    alerts = WalletAlerts(database, _AlertBus(bus), clock)
    consumers.add(REALTIME_CONSUMER, [WALLET_CHANGED], WalletChanges(realtime).handle)
    consumers.add(ALERTS_CONSUMER, [WALLET_ALERTS], alerts.handle)
    background.start("messages", dispatcher.run())
    return _Messages(outbox, dispatcher, realtime, alerts)


def _ledgers(foundation: Foundation, messages: _Messages) -> _Ledgers:
    _, database, clock, background, _, telemetry = foundation
    store = LedgerStore(database, _Announcer(messages.outbox, messages.dispatcher))
    committer = Committer(store, clock, LedgerMetrics(telemetry.metrics.registry))
    reader = LedgerReader(database, clock)
    background.start("ledger", committer.run())
    return _Ledgers(
        committer,
        store,
        Ledger(committer, store, clock),
        HoldLedger(committer, reader, clock),
        reader,
    )


async def _books(foundation: Foundation) -> _Books:
    prices = await _prices(foundation.database, foundation.clock)
    store = CatalogStore(foundation.database)
    catalog, inclusions = EndpointBookSource(store), Inclusions(store)
    await catalog.refresh()
    foundation.background.start("prices", prices.run())
    foundation.background.start("catalog", catalog.run())
    pricing = Pricing(lambda: prices.book, lambda: catalog.book)
    freshness = Freshness(prices.changed, catalog.changed, inclusions.renew)
    return _Books(prices, catalog, inclusions, pricing, freshness)


async def _prices(database: Database, clock: Clock) -> PriceBookSource:
    store = PriceStore(database)
    if not await store.is_seeded():
        await seed(store, clock)
    source = PriceBookSource(store)
    await source.refresh()
    return source


def _add_wallets(
    rpc: RpcServer,
    foundation: Foundation,
    messages: _Messages,
    ledgers: _Ledgers,
    tokens: PageTokens,
) -> None:
    settings, database, clock, background, drain, _ = foundation
    _, store, ledger, _, reader = ledgers
    realtime = messages.realtime
    watches = WalletWatches(
        store,
        reader.as_of_now,
        lambda user_id, heard: realtime.listen(wallet_channel(user_id), lambda _: heard()),
        ResumeTokens(tokens, clock),
        clock,
    )
    wallets = WalletServicer(ledger, reader, watches, messages.alerts, tokens, clock)
    rpc.add(add_WalletServiceServicer_to_server, wallets, complete=True)
    statements = StatementServicer(
        StatementReader(database, reader),
        TrialBalance(database),
        Signer(settings.secret),
        tokens,
        clock,
    )
    rpc.add(add_StatementServiceServicer_to_server, statements, complete=True)
    background.start("watched wallets", watches.read())
    background.start("watched versions", watches.sweep())
    background.start("watches' end", watches.end_with(drain.started))


def _add_credits(
    rpc: RpcServer,
    foundation: Foundation,
    ledgers: _Ledgers,
    books: _Books,
    resources: Resources,
    tokens: PageTokens,
) -> None:
    clock = foundation.clock
    _, _, ledger, holds, reader = ledgers
    prices, catalog, inclusions, pricing, _ = books
    entitlements = Entitlements(
        pricing,
        lambda value: catalog.book.find(value),
        lambda value: prices.book.is_active(value),
        inclusions,
    )
    explainer = Explainer(reader, pricing)
    process = CreditsProcessServicer(
        holds, reader, entitlements, explainer, pricing, books.freshness, tokens, clock
    )
    rpc.add(add_CreditsProcessServiceServicer_to_server, process, complete=True)
    servicer = CreditsServicer(ledger, reader, pricing, resources, published, tokens, clock)
    rpc.add(add_CreditsServiceServicer_to_server, servicer, complete=True)


def _add_usage(
    rpc: RpcServer,
    foundation: Foundation,
    ledgers: _Ledgers,
    books: _Books,
    resources: Resources,
    tokens: PageTokens,
) -> None:
    _, database, clock, _, drain, _ = foundation
    _, _, ledger, holds, reader = ledgers
    catalog = books.catalog
    events = EventReader(books.pricing, holds, books.freshness, clock)
    room = RejectionRoom(reader, clock)
    reading = FeatureUsageReader(lambda value: catalog.book.find(value), clock)
    logs = FeatureUsageLogs(reading, FeatureUsageStore(database), books.freshness, clock)
    usage = UsageServicer(ledger, reader, events, logs, room, resources, tokens, drain.started)
    rpc.add(add_UsageServiceServicer_to_server, usage, complete=True)
    empty = usage_service_pb2.UsageFrame(
        events=[usage_service_pb2.UsageEvent()], feature_events=[FeatureUsageEvent()]
    )
    warm([empty])


def _add_subscriptions(
    rpc: RpcServer, foundation: Foundation, ledgers: _Ledgers, resources: Resources
) -> None:
    database, clock = foundation.database, foundation.clock
    servicer = SubscriptionServicer(
        ledgers.ledger,
        PackageLedger(ledgers.committer, clock),
        SoldPackages(database),
        CouponUse(database),
        resources,
        clock,
    )
    rpc.add(add_SubscriptionServiceServicer_to_server, servicer, complete=True)


def _start_expiries(foundation: Foundation, messages: _Messages, ledgers: _Ledgers) -> None:
    settings, database, clock, background, _, _ = foundation
    lease = Lease(database, "expiry", clock)
    days = settings.expiry_notice_days
    worker = ExpiryWorker(ledgers.ledger, ledgers.reader, messages.alerts, lease, clock, days)
    background.start("expiries", worker.run())


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
        row = self._outbox.document(topic, payload, handed_over=True)
        return None if row is None else OutboxDocument(OUTBOX, row)

    def committed(self, rows: Sequence[OutboxDocument]) -> None:
        self._dispatcher.hand_over([row.document for row in rows])
