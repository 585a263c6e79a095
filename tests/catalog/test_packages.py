"""Packages through the contract: what reads fill in, what is refused, who keeps them."""

from typing import Any

import pytest
from bson import ObjectId

from server.catalog.packages import parts
from server.mongo.database import Database
from server.resources import engine
from tests.catalog.calls import change_feature, new_feature
from tests.catalog.package_calls import (
    call,
    change,
    include,
    new_package,
    new_plan,
    new_price,
    package,
)
from tests.conftest import MongoClient
from tests.ledger.calls import refused
from tests.serving import Served, new_key

DATABASE = "test_served"


async def listed(served: Served, package_id: str, **query: Any) -> Any:
    """The package as the list has it."""
    answer = await call(served, "ListPackages", **query, page_size=1_000)
    return next(one for one in answer.packages if one.id == package_id)


class TestContents:
    async def test_features_come_in_order(self, served: Served) -> None:
        made = await new_package(served)
        features = [await new_feature(served) for _ in range(3)]
        for feature, sequence in zip(features, (2, -1, 0), strict=True):
            await include(served, made.id, feature.id, sequence=sequence)
        found = await package(served, made.id)
        assert list(found.features) == [features[1], features[2], features[0]]
        assert await listed(served, made.id) == found

    async def test_plans_come_in_their_own_order_and_filled_in(self, served: Served) -> None:
        made = await new_package(served)
        yearly, monthly = [await new_plan(served, sequence=sequence) for sequence in (9, 3)]
        prices = [await new_price(served, made.id, plan.id) for plan in (yearly, monthly)]
        found = await package(served, made.id)
        assert [one.plan for one in found.plans] == [monthly, yearly]
        assert [one.id for one in found.plans] == [prices[1].id, prices[0].id]
        assert found.plans[0].price.usd_micros == 9_990_000
        assert await listed(served, made.id) == found

    async def test_what_is_off_or_deleted_is_left_out(self, served: Served) -> None:
        made = await new_package(served)
        for _ in range(2):
            await include(served, made.id)
            await new_price(served, made.id)
        off = await include(served, made.id, is_active=False)
        before = await package(served, made.id)
        assert off.feature_id not in {one.id for one in before.features}
        rows = await call(
            served, "ListPackageFeatures", filter=f"package_id = {made.id}", order_by="sequence"
        )
        await call(served, "DeletePackageFeature", id=rows.package_features[0].id)
        await call(served, "DeletePackagePlan", id=before.plans[1].id)
        found = await package(served, made.id)
        assert len(found.features) == 1
        assert [one.id for one in found.plans] == [before.plans[0].id]

    async def test_a_price_that_is_off_says_so(self, served: Served) -> None:
        made = await new_package(served)
        price = await new_price(served, made.id, is_active=False)
        await change(served, "Plan", price.plan_id, "is_active")
        (found,) = (await package(served, made.id)).plans
        assert (found.is_active, found.plan.is_active) == (False, False)

    async def test_features_and_plans_are_not_the_caller_s(self, served: Served) -> None:
        feature = await new_feature(served)
        made = await new_package(
            served, features=[{"id": feature.id}], history_id=str(ObjectId()), plans=[{}]
        )
        found = await package(served, made.id)
        assert not found.features
        assert not found.plans
        assert found.history_id == made.history_id
        for name in ("features", "plans", "history_id"):
            with refused("UPDATE_MASK_INVALID"):
                await change(served, "Package", made.id, name)

    async def test_a_page_of_large_packages_has_fewer(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A page is bounded in bytes with all that is filled in."""
        features = [await new_feature(served, description="x" * 1_000) for _ in range(3)]
        value = f"large-{new_key()}"
        for number in range(4):
            made = await new_package(served, value=f"{value}-{number}")
            for feature in features:
                await include(served, made.id, feature.id)
        monkeypatch.setattr(engine, "MAX_PAGE_BYTES", 8_000)
        seen: list[str] = []
        token = ""
        while True:
            page = await call(served, "ListPackages", search=value, page_size=3, page_token=token)
            seen += [one.value for one in page.packages]
            assert len(page.packages) == 2
            assert all(len(one.features) == 3 for one in page.packages)
            token = page.next_page_token
            if not token:
                break
        assert sorted(seen) == [f"{value}-{number}" for number in range(4)]

    async def test_a_page_takes_more_than_one_reading(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        value = f"many-{new_key()}"
        feature = await new_feature(served)
        for number in range(5):
            made = await new_package(served, value=f"{value}-{number}")
            await include(served, made.id, feature.id)
        monkeypatch.setattr(engine, "MAX_JOINED_ROWS", 2)
        for size, left in ((5, ""), (4, "0")):
            page = await call(served, "ListPackages", search=value, page_size=size)
            assert [one.value for one in page.packages] == [
                f"{value}-{number}" for number in range(4, 4 - size, -1)
            ]
            assert all(list(one.features) == [feature] for one in page.packages)
            rest = await call(
                served,
                "ListPackages",
                search=value,
                page_size=size,
                page_token=page.next_page_token,
            )
            assert bool(page.next_page_token) == bool(left)
            if left:
                assert [one.value for one in rest.packages] == [f"{value}-{left}"]


class TestContent:
    async def test_html_is_cleaned(self, served: Served) -> None:
        html = "<p onclick='x()'>a<script>b</script></p>"
        made = await new_package(served, content=html)
        assert made.content == "<p>a</p>"
        changed = await change(served, "Package", made.id, content=f"{html}<h1>b</h1>")
        assert changed.content == "<p>a</p><h1>b</h1>"
        popup = {"feature_id": (await new_feature(served)).id, "name": "x", "category": 1}
        popup |= {"value": f"p-{new_key()}", "content": html}
        answer = await call(served, "CreateFeaturePopup", feature_popup=popup)
        assert answer.feature_popup.content == "<p>a</p>"

    async def test_what_grows_too_long_is_refused(self, served: Served) -> None:
        with refused("FIELD_INVALID") as refusal:
            await new_package(served, content="&" * 20_000)
        assert refusal.metadata == {"field": "package.content"}


class TestOneOfEach:
    @pytest.mark.parametrize(("kind", "make"), [("plan", new_price), ("feature", include)])
    async def test_a_part_is_in_a_package_once(self, served: Served, kind: str, make: Any) -> None:
        made, other = await new_package(served), await new_package(served)
        joined = await make(served, made.id)
        part_id = getattr(joined, f"{kind}_id")
        with refused("ALREADY_EXISTS") as refusal:
            await make(served, made.id, part_id)
        assert refusal.metadata == {"field": "package_id", "id": joined.id}
        await make(served, other.id, part_id)
        with refused("FIELD_IMMUTABLE"):
            await change(served, f"Package{kind.capitalize()}", joined.id, package_id=other.id)

    async def test_parts_of_a_package_are_bounded(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = await new_package(served)
        for name, make in (("PLANS", new_price), ("FEATURES", include)):
            monkeypatch.setattr(parts, name, getattr(parts, name)._replace(limit=2))
            monkeypatch.setattr(f"server.catalog.packages.history.{name}", getattr(parts, name))
            for _ in range(2):
                await make(served, made.id)
            with refused("FIELD_INVALID") as refusal:
                await make(served, made.id)
            assert refusal.metadata["field"].endswith(".package_id")


class TestKeptByWallets:
    async def test_what_a_wallet_has_is_not_purged(
        self, served: Served, mongo_client: MongoClient
    ) -> None:
        wallets = Database(mongo_client, DATABASE).collection("user_wallets")
        made, plan = await new_package(served), await new_plan(served)
        user_id = await served.new_wallet()
        held = {"package_id": ObjectId(made.id), "plan_id": ObjectId(plan.id)}
        row = {"user_id": ObjectId(user_id)}
        await wallets.update_one(row, {"$set": held})
        wallet = await wallets.find_one(row)
        assert wallet is not None
        for kind, row_id in (("Package", made.id), ("Plan", plan.id)):
            # Put away it may be: who has it keeps it.
            await call(served, f"Delete{kind}", id=row_id)
            with refused("STILL_REFERENCED") as refusal:
                await call(served, f"Purge{kind}", id=row_id)
            named = {"id": row_id, "references": f"user_wallets/{wallet['_id']}"}
            assert refusal.metadata == named
        await wallets.update_one(row, {"$set": {"package_id": None, "plan_id": None}})
        for kind, row_id in (("Package", made.id), ("Plan", plan.id)):
            await call(served, f"Purge{kind}", id=row_id)

    async def test_wallets_are_found_by_an_index(
        self, served: Served, mongo_client: MongoClient
    ) -> None:
        database = mongo_client[DATABASE]
        for field in ("package_id", "plan_id"):
            query = {field: {"$eq": ObjectId(), "$type": "objectId"}}
            plan = await database["user_wallets"].find(query).explain()
            assert plan["queryPlanner"]["winningPlan"]["inputStage"]["stage"] == "IXSCAN"


async def test_a_change_is_marked(served: Served, mongo_client: MongoClient) -> None:
    """Whoever reads a book of the catalog sees that there is something new."""
    revisions = mongo_client[DATABASE]["catalog_revisions"]

    async def count() -> int:
        return sum([row["count"] async for row in revisions.find({})])

    seen = await count()
    made = await new_package(served)
    joined = await include(served, made.id)
    price = await new_price(served, made.id)
    for work in (
        change(served, "Package", made.id, name="Other"),
        change(served, "PackageFeature", joined.id, sequence=7),
        change(served, "PackagePlan", price.id, credits_micros=7),
        change_feature(served, joined.feature_id, name="Other"),
        call(served, "DeletePackageFeature", id=joined.id),
    ):
        before = await count()
        await work
        assert await count() > before
    assert before >= seen + 3
