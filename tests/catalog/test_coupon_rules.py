"""Coupons through the contract: what each type needs, codes, uses, and the packages they name."""

import asyncio
from typing import Any

import pytest
from bson import ObjectId
from zaaz.catalog.v1.coupon_pb2 import (
    DISCOUNT_TYPE_PERCENTAGE,
    Coupon,
    UpdateCouponRequest,
    UpdateCouponResponse,
)

from server.catalog.packages.resources import COUPONS
from server.composition import RESOURCES
from server.kernel.clock import system_clock
from server.kernel.paging import PageTokens
from server.mongo.database import Database
from server.resources.changes import Changes
from server.resources.engine import Resources
from tests.catalog.package_calls import call, change, new_package
from tests.conftest import MongoClient
from tests.ledger.calls import refused
from tests.serving import SECRET, Served, new_key

PERCENTAGE = {"discount_type": 1, "discount_ppm": 100_000}
FIXED = {"discount_type": 2, "fixed_amount": {"usd_micros": 5}}
CREDITS = {"discount_type": 3, "credits_micros": 5}


async def new_coupon(served: Served, **fields: Any) -> Any:
    coupon = {"code": f"C-{new_key()}", "is_active": True, **(fields or PERCENTAGE)}
    return (await call(served, "CreateCoupon", coupon=coupon)).coupon


@pytest.fixture
def database(mongo_client: MongoClient) -> Database:
    return Database(mongo_client, "test_served")


class TestTypes:
    @pytest.mark.parametrize("fields", [PERCENTAGE, FIXED, CREDITS, {**CREDITS, "credits_days": 3}])
    async def test_whole_ones(self, served: Served, fields: dict[str, Any]) -> None:
        made = await new_coupon(served, **fields)
        assert made.discount_type == fields["discount_type"]
        assert made.usage_count == 0

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({**PERCENTAGE, "discount_ppm": 0}, "discount_ppm"),
            ({**PERCENTAGE, "discount_ppm": 1_000_001}, "discount_ppm"),
            ({**PERCENTAGE, "fixed_amount": {"usd_micros": 1}}, "fixed_amount"),
            ({**PERCENTAGE, "credits_micros": 1}, "credits_micros"),
            ({**PERCENTAGE, "credits_days": 1}, "credits_days"),
            ({**FIXED, "fixed_amount": {}}, "fixed_amount"),
            ({"discount_type": 2}, "fixed_amount"),
            ({**FIXED, "discount_ppm": 1}, "discount_ppm"),
            ({**FIXED, "credits_micros": 1}, "credits_micros"),
            ({"discount_type": 3}, "credits_micros"),
            ({**CREDITS, "discount_ppm": 1}, "discount_ppm"),
            ({**CREDITS, "fixed_amount": {"bdt_micros": 1}}, "fixed_amount"),
            ({"discount_type": 0}, "discount_type"),
        ],
        ids=str,
    )
    async def test_others(self, served: Served, fields: dict[str, Any], field: str) -> None:
        with refused("FIELD_INVALID") as refusal:
            await new_coupon(served, **fields)
        assert refusal.metadata == {"field": f"coupon.{field}"}

    async def test_a_change_of_type_brings_its_fields(self, served: Served) -> None:
        made = await new_coupon(served)
        with refused("FIELD_INVALID"):
            await change(served, "Coupon", made.id, **CREDITS)
        changed = await change(served, "Coupon", made.id, "discount_ppm", **CREDITS)
        assert (changed.discount_ppm, changed.credits_micros) == (0, 5)

    async def test_it_begins_before_it_ends(self, served: Served) -> None:
        coupon = Coupon(code=f"C-{new_key()}", discount_ppm=1)
        coupon.discount_type = DISCOUNT_TYPE_PERCENTAGE
        coupon.valid_until_time.FromSeconds(2)
        for begin in (2, 3):
            coupon.valid_from_time.FromSeconds(begin)
            with refused("FIELD_INVALID") as refusal:
                await call(served, "CreateCoupon", coupon=coupon)
            assert refusal.metadata == {"field": "coupon.valid_until_time"}
        coupon.valid_from_time.FromSeconds(1)
        await call(served, "CreateCoupon", coupon=coupon)


class TestCodes:
    async def test_are_kept_in_capitals_and_unique_in_any_case(self, served: Served) -> None:
        code = f"sale-{new_key()}"
        made = await new_coupon(served, code=code, **PERCENTAGE)
        assert made.code == code.upper()
        with refused("ALREADY_EXISTS") as refusal:
            await new_coupon(served, code=code.capitalize(), **PERCENTAGE)
        assert refusal.metadata == {"field": "code", "id": made.id}


class TestPackages:
    async def test_each_is_checked(self, served: Served) -> None:
        known, missing = (await new_package(served)).id, str(ObjectId())
        with refused("REFERENCE_NOT_FOUND") as refusal:
            await new_coupon(served, **PERCENTAGE, applicable_package_ids=[known, missing])
        assert refusal.metadata == {"field": "applicable_package_ids", "id": missing}

    async def test_one_that_is_named_stays(self, served: Served) -> None:
        ids = [(await new_package(served)).id for _ in range(3)]
        made = await new_coupon(served, **PERCENTAGE, applicable_package_ids=ids[:2])
        changed = await change(served, "Coupon", made.id, applicable_package_ids=ids[1:])
        assert list(changed.applicable_package_ids) == ids[1:]
        await call(served, "PurgePackage", id=ids[0])
        for verb in ("Delete", "Purge"):
            with refused("STILL_REFERENCED") as refusal:
                await call(served, f"{verb}Package", id=ids[1])
            assert refusal.metadata["references"] == f"coupons/{made.id}"
        answer = await call(served, "ListCoupons", filter=f"applicable_package_ids : {ids[2]}")
        assert [one.id for one in answer.coupons] == [made.id]


class TestUses:
    async def test_are_not_the_caller_s(self, served: Served) -> None:
        made = await new_coupon(served, **PERCENTAGE, usage_count=7)
        assert made.usage_count == 0
        with refused("UPDATE_MASK_INVALID"):
            await change(served, "Coupon", made.id, usage_count=7)

    async def test_outlive_changes(self, served: Served, database: Database) -> None:
        made = await new_coupon(served)
        await redeem(database, made.id)
        changed = await change(served, "Coupon", made.id, description="x")
        assert (changed.usage_count, changed.description) == (1, "x")

    async def test_one_that_is_counted_beside_a_change_is_kept(
        self, served: Served, database: Database
    ) -> None:
        """The engine writes rows whole: it has to lose to a count that came in between."""
        made = await new_coupon(served)
        coupon_id = ObjectId(made.id)
        resources = Resources(database, system_clock, PageTokens(SECRET), RESOURCES)
        tries: list[int] = []

        async def work(changes: Changes) -> UpdateCouponResponse:
            (old,) = await changes.get(COUPONS, [coupon_id])
            tries.append(old["usage_count"])
            if len(tries) == 1:
                await redeem(database, made.id)
            await changes.update(COUPONS, old, {**old, "description": "changed"})
            return UpdateCouponResponse()

        await resources.run(UpdateCouponRequest(), UpdateCouponResponse, work, "tests")
        row = await database.collection("coupons").find_one({"_id": coupon_id})
        assert tries == [0, 1]
        assert row is not None
        assert (row["usage_count"], row["guard"], row["description"]) == (1, 1, "changed")

    async def test_many_beside_many_changes(self, served: Served, database: Database) -> None:
        made = await new_coupon(served)
        uses = [redeem(database, made.id) for _ in range(20)]
        changes = [change(served, "Coupon", made.id, description=str(i)) for i in range(20)]
        results = await asyncio.gather(*uses, *changes, return_exceptions=True)
        assert not any(isinstance(one, BaseException) for one in results[:20])
        found = (await call(served, "GetCoupon", id=made.id)).coupon
        assert found.usage_count == 20


async def redeem(database: Database, coupon_id: str) -> None:
    """Count a use, as the ledger does: under the row's version and guard, tried again."""
    coupons = database.collection("coupons")
    while True:
        row = await coupons.find_one({"_id": ObjectId(coupon_id)})
        assert row is not None
        pinned = {name: row[name] for name in ("_id", "version", "guard")}
        counted = {"$inc": {"usage_count": 1, "guard": 1}}
        if (await coupons.update_one(pinned, counted)).modified_count:
            return
