"""ListOffers: what is sold now, and nothing else."""

from typing import Any

import pytest
from bson import ObjectId
from pymongo import AsyncMongoClient, monitoring
from zaaz.catalog.v1 import offer_service_pb2 as pb

from server.catalog.offers.listing import MAX_BYTES, Offers, present_offers
from server.catalog.offers.store import OfferStore
from server.mongo.database import Database
from tests.ledger.calls import refused
from tests.offers.shop import BDT, TEN_USD, USD, Document, Shop, feature, plan, price


def names(rows: Any) -> list[str]:
    return [row.name for row in rows]


async def test_an_offer_says_all_of_a_package(shop: Shop) -> None:
    chat, images = feature("Chat"), feature("Images", parent_id=ObjectId())
    monthly, yearly = plan(), plan("Yearly", duration_days=365, sequence=2)
    snapshot = await shop.put(
        price(monthly, is_initial=True),
        price(yearly, 100_000_000, previous_price={"usd_micros": 120_000_000}),
        features=[chat, images],
        description="For teams",
        content="<b>All</b>",
        badge="Popular",
        points=["Fast", "Good"],
        is_initial=True,
    )
    (offer,) = await shop.list()
    assert offer.package_id == str(snapshot["package_id"])
    assert offer.package_history_id == str(snapshot["_id"])
    assert (offer.name, offer.value, offer.type) == ("Pro", snapshot["value"], 2)
    assert (offer.description, offer.content) == ("For teams", "<b>All</b>")
    assert (offer.badge, list(offer.points)) == ("Popular", ["Fast", "Good"])
    assert offer.is_initial

    assert names(offer.features) == ["Chat", "Images"]
    first, second = offer.features
    assert (first.id, first.value, first.type) == (str(chat["_id"]), "chat", 1)
    assert (first.description, first.parent_id) == ("Chat it", "")
    assert second.parent_id == str(images["parent_id"])

    assert names(offer.plans) == ["Monthly", "Yearly"]
    month, year = offer.plans
    assert (month.plan_id, month.duration_days) == (str(monthly["_id"]), 30)
    assert month.package_plan_id == str(snapshot["plans"][0]["_id"])
    assert (month.description, month.credits_micros) == ("Monthly billing", 5_000_000)
    assert (month.price_micros, month.is_initial) == (TEN_USD, True)
    assert not month.HasField("previous_price_micros")
    assert (year.price_micros, year.previous_price_micros) == (100_000_000, 120_000_000)
    assert not year.is_initial


async def test_offers_are_in_order_of_sequence_then_name(shop: Shop) -> None:
    for name, sequence in [("B", 2), ("C", 1), ("A", 2), ("D", -1)]:
        await shop.put(price(plan()), name=name, sequence=sequence)
    assert names(await shop.list()) == ["D", "C", "A", "B"]


async def test_only_what_is_active_is_offered(shop: Shop) -> None:
    await shop.put(price(plan()), name="Off", is_active=False)
    await shop.put(price(plan()), name="Gone", is_deleted=True)
    await shop.put(price(plan(is_active=False)), name="Plan off")
    await shop.put(price(plan(), is_active=False), name="Price off")
    await shop.put(name="No price")
    await shop.put(
        price(plan("On")),
        price(plan("Off", is_active=False)),
        price(plan("Off too"), is_active=False),
        features=[feature("On"), feature("Off", is_active=False)],
        name="On",
    )
    (offer,) = await shop.list()
    assert offer.name == "On"
    assert names(offer.plans) == ["On"]
    assert names(offer.features) == ["On"]


async def test_only_prices_in_the_currency_are_offered(shop: Shop) -> None:
    taka: Document = {"price": {"bdt_micros": 7}, "previous_price": {"usd_micros": 8}}
    both: Document = {
        "price": {"usd_micros": 0, "bdt_micros": 9},
        "previous_price": {"bdt_micros": 10},
    }
    await shop.put(price(plan("Taka"), **taka), name="Taka")
    await shop.put(price(plan("Taka"), **taka), price(plan("Both"), **both), name="Both")
    await shop.put(price(plan()), name="Dollars")

    offers = await shop.list(USD)
    assert names(offers) == ["Both", "Dollars"]
    (free,) = offers[0].plans
    assert (free.name, free.price_micros) == ("Both", 0)
    assert not free.HasField("previous_price_micros")

    offers = await shop.list(BDT)
    assert names(offers) == ["Both", "Taka"]
    assert [one.price_micros for one in offers[0].plans] == [7, 9]
    assert [one.previous_price_micros for one in offers[0].plans] == [0, 10]


async def test_a_change_shows_at_once(shop: Shop) -> None:
    snapshot = await shop.put(price(plan()))
    (first,) = await shop.list()
    changed = await shop.change(snapshot, name="Pro 2", plans=[price(plan(), 7)])
    (second,) = await shop.list()
    assert (second.name, second.plans[0].price_micros) == ("Pro 2", 7)
    assert second.package_history_id == str(changed["_id"]) != first.package_history_id
    await shop.change(changed, is_active=False)
    assert not await shop.list()
    await shop.change(changed, is_active=True)
    assert names(await shop.list()) == ["Pro 2"]


class _Commands(monitoring.CommandListener):
    """The commands that were sent, and how many snapshots came of each."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.snapshots: list[int] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.names.append(event.command_name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        if event.command_name == "aggregate":
            rows = event.reply["cursor"]["firstBatch"]
            self.snapshots.append(sum(len(row.get("snapshot", ())) for row in rows))

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        raise AssertionError(event.failure)


@pytest.fixture
def commands() -> _Commands:
    return _Commands()


async def test_one_round_trip_for_what_is_not_known_yet(
    shop: Shop, mongo_url: str, commands: _Commands
) -> None:
    """However many packages, more than a cursor's usual first batch."""
    async with AsyncMongoClient[Document](mongo_url, event_listeners=[commands]) as client:
        offers = Offers(OfferStore(Database(client, shop.database.name)))
        made = [await shop.put(price(plan()), name=f"P{n:03}") for n in range(120)]
        assert names((await offers.all(USD)).offers) == [row["name"] for row in made]
        await shop.change(made[3], name="P003 again")
        assert (await offers.all(USD)).offers[3].name == "P003 again"
        await offers.all(USD)
        assert not (await offers.all(BDT)).offers
        await offers.all(BDT)
        assert commands.names == ["aggregate"] * 5
        # What has no price in a currency is known too.
        assert commands.snapshots == [120, 1, 0, 120, 0]


def test_a_package_that_changes_while_it_is_looked_at() -> None:
    """It is told of in two ways, of which the later one is right."""
    kept, gone, changed = ObjectId(), ObjectId(), ObjectId()
    new: Document = {
        "_id": ObjectId(),
        "package_id": changed,
        "name": "New",
        "plans": [price(plan())],
    }
    known = {history_id: pb.Offer(name="Known") for history_id in (ObjectId(), ObjectId())}
    first, second = known
    rows: list[Document] = [
        {"_id": kept, "history_id": first},
        {"_id": gone, "history_id": ObjectId()},
        {"_id": changed, "history_id": second},
        {"_id": changed, "history_id": new["_id"], "snapshot": [new]},
    ]
    present = present_offers(rows, known, USD)
    assert present.keys() == {first, new["_id"]}
    assert present[first] is known[first]
    assert names(filter(None, present.values())) == ["Known", "New"]


async def test_more_than_a_client_takes_is_refused_by_its_reason(shop: Shop) -> None:
    for _ in range(85):
        await shop.put(price(plan()), content="x" * 50_000)
    with refused("MESSAGE_TOO_LARGE") as refusal:
        await shop.list()
    assert refusal.metadata["limit_bytes"] == str(MAX_BYTES)
