"""ListOffers over the driver's aggregate of the rows that it is made of."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import grpc
from bson import ObjectId
from pymongo import AsyncMongoClient
from zaaz.catalog.v1 import offer_service_pb2 as pb
from zaaz.catalog.v1.offer_service_pb2_grpc import OfferServiceStub

from bench.consume import call_all
from bench.pairs import Run, Sides
from bench.processes import SERVER_DATABASE, BenchError, Served
from bench.setting import Bench, Size
from bench.usage import Document
from server.catalog.packages.resources import PACKAGE_HISTORIES, PACKAGES

PACKAGE_COUNT, PLAN_COUNT, FEATURE_COUNT = 50, 4, 200
LISTS, AGGREGATES = Size(500, 1_000), Size(100, 200)
CALLERS = 8
"""A megabyte is on its way to each of them."""


async def put_on_sale(database: Any) -> None:
    """Packages with every plan and feature, each with its snapshot, written straight in."""
    chance = random.Random(PACKAGE_COUNT)
    now = datetime.now(UTC)
    common = {"is_active": True, "is_deleted": False, "created_time": now, "updated_time": now}
    features = [_feature(number, common) for number in range(FEATURE_COUNT)]
    plans = [_plan(number, common) for number in range(PLAN_COUNT)]
    packages, snapshots = [], []
    for number in range(PACKAGE_COUNT):
        package_id, snapshot_id = ObjectId(), ObjectId()
        package = {
            "name": f"Package {number}",
            "value": f"package-{number}",
            "description": "What a small team needs to write every day.",
            "badge": "Popular" if number % 5 == 0 else "",
            "type": 2,
            "points": ["More words", "More models", "Answers within a day"],
            "sequence": number,
            **({"is_initial": True} if not number else {}),
            **common,
        }
        prices = [_price(package_id, plan, chance.randrange(5, 500), common) for plan in plans]
        packages.append(
            {**package, "_id": package_id, "history_id": snapshot_id, "version": 1, "guard": 0}
        )
        snapshots.append(
            {
                **package,
                "_id": snapshot_id,
                "package_id": package_id,
                "features": features,
                "plans": prices,
            }
        )
    await database[PACKAGE_HISTORIES.collection].insert_many(snapshots)
    await database[PACKAGES.collection].insert_many(packages)


def _feature(number: int, common: Document) -> Document:
    return {
        "_id": ObjectId(),
        "name": f"Feature {number}",
        "value": f"feature-{number}",
        "description": "Writes a text of any kind from a few words.",
        "type": 1 + number % 3,
        "sequence": number,
        **common,
    }


def _plan(number: int, common: Document) -> Document:
    names = {"name": f"Plan {number}", "description": f"{number + 1} months at a time"}
    return {"_id": ObjectId(), "duration_days": 30 * (number + 1), **names, **common}


def _price(package_id: ObjectId, plan: Document, units: int, common: Document) -> Document:
    amounts = {"usd_micros": units * 1_000_000, "bdt_micros": units * 120_000_000}
    return {
        "_id": ObjectId(),
        "package_id": package_id,
        "plan_id": plan["_id"],
        "plan": plan,
        "price": amounts,
        "previous_price": {name: 2 * amount for name, amount in amounts.items()},
        "credits_micros": units * 10_000_000,
        **common,
    }


class Lists:
    """ListOffers in US dollars."""

    def __init__(self, channel: grpc.aio.Channel, served: Served) -> None:
        self._stub: Any = OfferServiceStub(channel)
        self._metadata = served.metadata
        self._request = pb.ListOffersRequest(currency=pb.CURRENCY_USD)

    async def prepare(self, operations: int) -> Run:
        """Lists once: everything has to be there."""
        offers = (await self._list(self._request)).offers
        parts = [(len(offer.plans), len(offer.features)) for offer in offers]
        if parts != [(PLAN_COUNT, FEATURE_COUNT)] * PACKAGE_COUNT:
            raise BenchError(f"the offers have {parts} plans and features")
        return lambda: call_all(self._list, [self._request] * operations, CALLERS)

    async def _list(self, request: pb.ListOffersRequest) -> Any:
        return await self._stub.ListOffers(request, metadata=self._metadata)


class Aggregates:
    """The baseline: all of the same by one aggregate, in this process, and no messages made."""

    def __init__(self, database: Any) -> None:
        self._packages = database[PACKAGES.collection]

    async def prepare(self, operations: int) -> Run:
        """Nothing but the count."""
        return lambda: call_all(self._aggregate, range(operations), CALLERS)

    async def _aggregate(self, _: int) -> None:
        stages = [
            {"$match": {"is_deleted": False, "is_active": True}},
            {
                "$lookup": {
                    "from": PACKAGE_HISTORIES.collection,
                    "as": "snapshot",
                    "localField": "history_id",
                    "foreignField": "_id",
                }
            },
        ]
        cursor = await self._packages.aggregate(stages)
        if len(await cursor.to_list()) != PACKAGE_COUNT:
            raise BenchError("the aggregate has too few rows")


@asynccontextmanager
async def offers(bench: Bench) -> AsyncIterator[Sides]:
    """ListOffers over an aggregate."""
    async with AsyncMongoClient[Document](bench.served.mongo_url) as client:
        database = client[SERVER_DATABASE]
        await put_on_sale(database)
        counts = bench.plan.operations(LISTS), bench.plan.operations(AGGREGATES)
        yield Sides(Lists(bench.channel, bench.served), Aggregates(database), counts)
