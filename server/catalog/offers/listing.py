"""Offers as buyers see them: made once of each snapshot, which never changes."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from bson import ObjectId
from zaaz.catalog.v1 import offer_service_pb2 as pb

from server.catalog.offers.documents import sold_plans
from server.catalog.offers.model import Currency
from server.catalog.offers.store import OfferStore
from server.kernel.errors import DomainError, Reason

MAX_BYTES: Final = 4 * 1024 * 1024 - 1_024
"""Of all that is sold: clients take 4 MiB by default."""

_PRICE: Final = {Currency.USD: "usd_micros", Currency.BDT: "bdt_micros"}

Row = Mapping[str, Any]


class _Listing(NamedTuple):
    """What was offered in a currency: by snapshot (None: it has no price in this one), and all."""

    by_snapshot: Mapping[ObjectId, pb.Offer | None]
    response: pb.ListOffersResponse


_NOTHING: Final = _Listing({}, pb.ListOffersResponse())


class Offers:
    """All that is sold now. What was offered last, at most MAX_PACKAGES, is kept ready."""

    def __init__(self, store: OfferStore) -> None:
        self._store = store
        self._last: dict[int, _Listing] = {}

    async def all(self, currency: int) -> pb.ListOffersResponse:
        """The packages that have a price in the currency, by their sequence, then name.

        One round trip to the database, for what has changed. The answer is not to be changed.
        """
        last = self._last.get(currency, _NOTHING)
        rows = await self._store.offered(last.by_snapshot.keys())
        present = present_offers(rows, last.by_snapshot, currency)
        if present.keys() != last.by_snapshot.keys():
            last = self._last[currency] = _Listing(present, _response(present))
        return last.response


def present_offers(
    rows: Iterable[Row], known: Mapping[ObjectId, pb.Offer | None], currency: int
) -> dict[ObjectId, pb.Offer | None]:
    """What is offered by `OfferStore.offered`'s rows, by snapshot, made of it or as it is known."""
    present: dict[ObjectId, pb.Offer | None] = {}
    for row in {row["_id"]: row for row in rows}.values():
        # One that was never sold has none.
        history_id: ObjectId | None = row.get("history_id")
        if history_id is not None and history_id in known:
            present[history_id] = known[history_id]
        for snapshot in row.get("snapshot", ()):
            present[snapshot["_id"]] = offer(snapshot, currency)
    return present


def _response(present: Mapping[ObjectId, pb.Offer | None]) -> pb.ListOffersResponse:
    """MESSAGE_TOO_LARGE: a client would refuse it, and not know why."""
    offers = [made for made in present.values() if made is not None]
    response = pb.ListOffersResponse(
        offers=sorted(offers, key=lambda one: (one.sequence, one.name))
    )
    if (size := response.ByteSize()) > MAX_BYTES:
        raise DomainError(
            Reason.MESSAGE_TOO_LARGE,
            "what is sold does not fit one answer: shorten contents and descriptions",
            {"size_bytes": size, "limit_bytes": MAX_BYTES},
        )
    return response


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
