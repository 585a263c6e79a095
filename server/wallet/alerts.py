"""What users should know of their wallets: kept for 90 days, each alert once."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from pymongo import DESCENDING, UpdateOne

from server.kernel.clock import DAY_MS, Clock
from server.kernel.ids import derived_id
from server.ledger.alerts import Alert, AlertKind
from server.ledger.dates import milliseconds
from server.mongo.database import Database
from server.mongo.errors import reachable
from server.mongo.schema import Collection, Index

ALERTS = "wallet_alerts"
KEEP_DAYS = 90
CONSUMER = "wallet-alerts"

COLLECTIONS = (
    Collection(
        ALERTS,
        (
            Index((("user_id", 1), ("time", -1), ("_id", -1))),
            Index((("time", -1), ("_id", -1))),
            Index((("expires_time", 1),), expire_after_seconds=0),
        ),
    ),
)

Document = dict[str, Any]


class _Carrier(Protocol):
    """A message of the outbox, as far as this consumer looks at it."""

    @property
    def payload(self) -> Mapping[str, Any]: ...


class Publisher(Protocol):
    """The outbox, as far as alerts that no transaction brought need it."""

    async def publish(self, alerts: Sequence[Alert]) -> None:
        """Hands them to every consumer of the topic, at least once."""


class WalletAlerts:
    """All methods may raise DatabaseUnavailable."""

    def __init__(self, database: Database, publisher: Publisher, clock: Clock) -> None:
        self._rows = database.collection(ALERTS)
        self._publisher = publisher
        self._clock = clock

    async def handle(self, message: _Carrier) -> None:
        """Keeps the alerts of a message of the outbox. Twice is once."""
        now_ms = self._clock()
        alerts = [Alert(**alert) for alert in message.payload["alerts"]]
        with reachable():
            await self._rows.bulk_write([_kept(alert, now_ms) for alert in alerts], ordered=False)

    async def announce(self, alerts: Sequence[Alert]) -> None:
        """Publishes those that are not kept yet."""
        if not alerts:
            return
        by_id = {alert_id(alert): alert for alert in alerts}
        with reachable():
            told = await self._rows.find({"_id": {"$in": list(by_id)}}, {"_id": 1}).to_list()
        for row in told:
            del by_id[row["_id"]]
        if by_id:
            await self._publisher.publish(list(by_id.values()))

    async def page(
        self, user_id: str, after: Sequence[str | int] | None, size: int
    ) -> list[Document]:
        """Rows, newest first, of one user ("": of all), past a place of time and id."""
        query: Document = {"user_id": ObjectId(user_id)} if user_id else {}
        if after:
            moment, last = DatetimeMS(int(after[0])), ObjectId(str(after[1]))
            query["$or"] = [{"time": {"$lt": moment}}, {"time": moment, "_id": {"$lt": last}}]
        order = {"time": DESCENDING, "_id": DESCENDING}
        with reachable():
            return await self._rows.find(query).sort(order).limit(size).to_list()


def alert_id(alert: Alert) -> ObjectId:
    """The same for the same alert, however often it is raised."""
    if alert.kind == AlertKind.CREDITS_EXPIRING:
        return derived_id("alert", str(alert.kind), str(alert.grant_id), str(alert.days))
    if alert.kind == AlertKind.PACKAGE_EXPIRING:
        of_period = (str(alert.user_wallet_id), str(alert.time_ms), str(alert.days))
        return derived_id("alert", str(alert.kind), *of_period)
    return derived_id("alert", str(alert.kind), str(alert.user_wallet_id), str(alert.sequence))


def place(row: Mapping[str, Any]) -> list[str | int]:
    """Where a row stands in the order of time."""
    return [milliseconds(row["time"]), str(row["_id"])]


def _kept(alert: Alert, now_ms: int) -> UpdateOne:
    row: Document = alert._asdict()
    # From the outbox it comes as BSON's own kind of integer, which DatetimeMS does not take well.
    row["time"] = DatetimeMS(int(row.pop("time_ms")))
    row["expires_time"] = DatetimeMS(now_ms + KEEP_DAYS * DAY_MS)
    return UpdateOne({"_id": alert_id(alert)}, {"$setOnInsert": row}, upsert=True)
