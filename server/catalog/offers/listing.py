"""Offers as buyers see them: made once of each snapshot, which never changes."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from bson import ObjectId
from zaaz.catalog.v1 import offer_service_pb2 as pb

from server.catalog.offers.documents import sold_plans
from server.catalog.offers.model import Currency
from server.catalog.offers.store import OfferStore

MAX_CACHED_OFFERS: Final = 4_096
"""Offers that are kept ready, of all packages and currencies; the longest unused goes first."""

_PRICE: Final = {Currency.USD: "usd_micros", Currency.BDT: "bdt_micros"}

_Key = tuple[ObjectId, int]
_Offers = list[pb.Offer]
Row = Mapping[str, Any]


class Offers:
    """All that is sold now, in one round trip to the database for what has changed."""

    def __init__(self, store: OfferStore, max_cached: int = MAX_CACHED_OFFERS) -> None:
        self._store = store
        self._max_cached = max_cached
        # By snapshot and currency; None: it has no price in this one.
        self._made: OrderedDict[_Key, pb.Offer | None] = OrderedDict()

    async def all(self, currency: int) -> pb.ListOffersResponse:
        """The packages that have a price in the currency, by their sequence, then name."""
        known = {history_id for history_id, made_for in self._made if made_for == currency}
        offers = []
        for row in await self._store.offered(known):
            key = row["history_id"], currency
            for snapshot in row["snapshot"]:
                self._made[key] = offer(snapshot, currency)
            if (made := self._made.get(key)) is not None:
                offers.append(made)
                self._made.move_to_end(key)
        while len(self._made) > self._max_cached:
            self._made.popitem(last=False)
        return pb.ListOffersResponse(offers=sorted(offers, key=lambda o: (o.sequence, o.name)))


def offer(snapshot: Row, currency: int) -> pb.Offer | None:
    """What a snapshot offers in a currency; None: nothing."""
    plans = [plan for row in sold_plans(snapshot) if (plan := _plan(row, currency)) is not None]
    if not plans:
        return None
    features = [_feature(row) for row in snapshot.get("features", ()) if row.get("is_active")]
    return pb.Offer(
        package_id=str(snapshot["package_id"]),
        package_history_id=str(snapshot["_id"]),
        name=snapshot.get("name", ""),
        value=snapshot.get("value", ""),
        description=snapshot.get("description", ""),
        content=snapshot.get("content", ""),
        badge=snapshot.get("badge", ""),
        type=snapshot.get("type", 0),
        points=snapshot.get("points", ()),
        sequence=snapshot.get("sequence", 0),
        is_initial=snapshot.get("is_initial", False),
        features=features,
        plans=plans,
    )


def _plan(row: Row, currency: int) -> pb.OfferPlan | None:
    name, plan = _PRICE[Currency(currency)], row["plan"]
    price = row.get("price", {}).get(name)
    if price is None:
        return None
    return pb.OfferPlan(
        plan_id=str(row["plan_id"]),
        package_plan_id=str(row["_id"]),
        name=plan.get("name", ""),
        description=plan.get("description", ""),
        duration_days=plan.get("duration_days", 0),
        price_micros=price,
        previous_price_micros=row.get("previous_price", {}).get(name),
        credits_micros=row.get("credits_micros", 0),
        is_initial=row.get("is_initial", False),
    )


def _feature(row: Row) -> pb.OfferFeature:
    parent = row.get("parent_id")
    return pb.OfferFeature(
        id=str(row["_id"]),
        name=row.get("name", ""),
        value=row.get("value", ""),
        description=row.get("description", ""),
        type=row.get("type", 0),
        parent_id="" if parent is None else str(parent),
    )
