"""Snapshots of packages: one for every change of any part, equal to what is there, for ever."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from itertools import pairwise
from typing import Any

import grpc
import pytest
from zaaz.catalog.v1 import catalog_service_pb2
from zaaz.catalog.v1.package_history_pb2 import PackageHistory

from server.catalog.packages import history, parts
from tests.catalog.calls import change_feature, new_feature
from tests.catalog.package_calls import (
    call,
    change,
    histories,
    include,
    new_package,
    new_plan,
    new_price,
    newest,
    package,
)
from tests.conftest import MongoClient
from tests.ledger.calls import refused
from tests.serving import Served, new_key, reason_of, serving

ROUNDS = 8
OWN = ("name", "value", "description", "content", "badge", "type", "points", "sequence")
FLAGS = ("is_initial", "is_active", "is_deleted")

Two = tuple[Served, Served]


@pytest.fixture(scope="module")
async def two(mongo_url: str, mongo_client: MongoClient) -> AsyncIterator[Two]:
    """Two servers on one database of their own."""
    name = f"test_{new_key()[:16]}"
    async with serving(mongo_url, name) as one, serving(mongo_url, name) as other:
        yield one, other
    await mongo_client.drop_database(name)


class Stocked:
    """A package with two features and two prices."""

    def __init__(self, package_id: str, joins: list[Any], prices: list[Any]) -> None:
        self.id = package_id
        self.joins = joins
        self.prices = prices


async def stocked(served: Served) -> Stocked:
    made = await new_package(served, description="All of it", points=["a", "b"], badge="Popular")
    joins = [await include(served, made.id, sequence=sequence) for sequence in (2, 1)]
    plans = [await new_plan(served, sequence=sequence) for sequence in (2, 1)]
    prices = [await new_price(served, made.id, plan.id) for plan in plans]
    return Stocked(made.id, joins, prices)


async def assert_present(served: Served, package_id: str) -> PackageHistory:
    """The newest snapshot is what is there now, and its hash is that of its content."""
    snapshot: PackageHistory = await newest(served, package_id)
    present = await package(served, package_id)
    for name in (*OWN, *FLAGS, "features", "plans"):
        assert getattr(snapshot, name) == getattr(present, name), name
    assert snapshot.package_id == package_id
    assert snapshot.content_sha256 == digest(snapshot)
    return snapshot


def digest(snapshot: PackageHistory) -> str:
    """As anyone may check it."""
    names = set(PackageHistory.DESCRIPTOR.fields_by_name)
    names -= {"id", "content_sha256", "created_time", "client_id"}
    fields: Any = {field.name: value for field, value in snapshot.ListFields()}
    content = PackageHistory(**{name: fields[name] for name in names & fields.keys()})
    return sha256(content.SerializeToString(deterministic=True)).hexdigest()


class TestEveryChange:
    async def test_of_a_new_package(self, served: Served) -> None:
        made = await new_package(served, description="All of it")
        (snapshot,) = await histories(served, made.id)
        assert snapshot.id == made.history_id
        assert snapshot.client_id == "tests"
        assert snapshot.created_time == made.created_time
        assert await assert_present(served, made.id) == snapshot

    async def test_is_remembered_once(self, served: Served) -> None:
        one = await stocked(served)
        join, price = one.joins[0], one.prices[0]
        other = await new_feature(served)
        ids = [row.id for row in one.joins]
        works: list[Callable[[], Awaitable[Any]]] = [
            lambda: change(served, "Package", one.id, content="<p>x</p>"),
            lambda: change(served, "Package", one.id, "points"),
            lambda: change(served, "PackageFeature", join.id, sequence=-5),
            lambda: change(served, "PackageFeature", join.id, "is_active"),
            lambda: change(served, "PackageFeature", join.id, is_active=True),
            lambda: change(served, "PackagePlan", price.id, credits_micros=77),
            lambda: change(served, "PackagePlan", price.id, "is_active"),
            lambda: change(served, "PackagePlan", one.prices[1].id, is_initial=True),
            lambda: change(served, "Plan", price.plan_id, "is_active", sequence=-5),
            lambda: change_feature(served, join.feature_id, "is_active", description="x"),
            lambda: include(served, one.id, other.id),
            lambda: new_price(served, one.id),
            lambda: call(served, "DeletePackagePlan", id=price.id),
            lambda: call(served, "RestorePackagePlan", id=price.id),
            lambda: call(served, "PurgePackagePlan", id=price.id),
            lambda: call(served, "BatchDeletePackageFeatures", ids=ids),
        ]
        for work in works:
            before = await histories(served, one.id)
            await work()
            after = await histories(served, one.id)
            # What was written before is as it was.
            assert after[:-1] == before
            snapshot = await assert_present(served, one.id)
            assert snapshot.id == after[-1].id
            assert snapshot.content_sha256 != before[-1].content_sha256

    async def test_is_in_full(self, served: Served) -> None:
        one = await stocked(served)
        await change(served, "Plan", one.prices[0].plan_id, "is_active")
        await change(served, "PackagePlan", one.prices[1].id, "is_active")
        await change_feature(served, one.joins[0].feature_id, "is_active")
        snapshot = await newest(served, one.id)
        assert [row.id for row in snapshot.features] == [row.feature_id for row in one.joins][::-1]
        assert [row.is_active for row in snapshot.features] == [True, False]
        assert [row.id for row in snapshot.plans] == [row.id for row in one.prices][::-1]
        assert [(row.is_active, row.plan.is_active) for row in snapshot.plans] == [
            (False, True),
            (True, False),
        ]

    async def test_of_who_takes_the_flag_and_who_had_it(self, two: Two) -> None:
        first = await new_package(two[0])
        second = await new_package(two[0], is_initial=True)
        for row, is_initial in ((first, False), (second, True)):
            snapshot = await assert_present(two[0], row.id)
            assert snapshot.is_initial == is_initial

    async def test_of_its_end(self, served: Served) -> None:
        made = await new_package(served)
        await call(served, "DeletePackage", id=made.id)
        assert (await assert_present(served, made.id)).is_deleted
        await call(served, "RestorePackage", id=made.id)
        await call(served, "PurgePackage", id=made.id)
        rows = await histories(served, made.id)
        assert [row.is_deleted for row in rows] == [False, True, False, True]
        again = await new_package(served)
        await call(served, "DeletePackage", id=again.id)
        await call(served, "PurgePackage", id=again.id)
        assert [row.is_deleted for row in await histories(served, again.id)] == [False, True]


class TestNoChange:
    async def test_is_not_remembered(self, served: Served) -> None:
        one = await stocked(served)
        before = await histories(served, one.id)
        off = await include(served, one.id, is_active=False)
        await change(served, "PackageFeature", off.id, sequence=9)
        await change_feature(served, off.feature_id, name="Other")
        await change(served, "Package", one.id, name="Pro")
        await call(served, "DeletePackageFeature", id=off.id)
        await call(served, "RestorePackage", id=one.id)
        assert await histories(served, one.id) == before

    async def test_of_others_is_not_either(self, served: Served) -> None:
        one, other = await stocked(served), await stocked(served)
        before = await histories(served, one.id)
        await change(served, "Plan", other.prices[0].plan_id, "is_active")
        await change_feature(served, other.joins[0].feature_id, name="Other")
        assert await histories(served, one.id) == before


class TestBounds:
    async def test_a_part_of_too_many_packages_is_not_changed(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        feature, plan = await new_feature(served), await new_plan(served)
        for _ in range(3):
            made = await new_package(served)
            await include(served, made.id, feature.id)
            await new_price(served, made.id, plan.id)
        monkeypatch.setattr(parts, "MAX_PACKAGES", 2)
        for work, field in (
            (change_feature(served, feature.id, name="Other"), "feature.id"),
            (change(served, "Plan", plan.id, sequence=7), "plan.id"),
        ):
            with refused("FIELD_INVALID") as refusal:
                await work
            assert refusal.metadata == {"field": field}

    async def test_a_part_is_not_put_into_one_package_too_many(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parts, "MAX_PACKAGES", 2)
        feature, plan = await new_feature(served), await new_plan(served)
        for number in range(3):
            made = await new_package(served)
            works = include(served, made.id, feature.id), new_price(served, made.id, plan.id)
            for work, field in zip(works, ("feature.id", "plan.id"), strict=True):
                if number < 2:
                    await work
                    continue
                with refused("FIELD_INVALID") as refusal:
                    await work
                assert refusal.metadata == {"field": field}
        await change_feature(served, feature.id, name="Other")

    async def test_a_part_of_many_packages_is_remembered_for_each(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(history, "PACKAGES_AT_ONCE", 2)
        feature = await new_feature(served)
        made = [await new_package(served) for _ in range(5)]
        for one in made:
            await include(served, one.id, feature.id)
        await change_feature(served, feature.id, name="Other")
        for one in made:
            await assert_present(served, one.id)
            assert [part.name for part in (await newest(served, one.id)).features] == ["Other"]


def test_no_verb_changes_one() -> None:
    service = catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"]
    names = {one.name for one in service.methods if "PackageHistor" in one.name}
    assert names == {"GetPackageHistory", "ListPackageHistories"}


async def raced(*calls: Awaitable[Any]) -> None:
    """All of these at once; some may have kept losing."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, grpc.aio.AioRpcError):
            assert reason_of(result) == "CONTENTION"
        elif isinstance(result, BaseException):
            raise result


class TestRaces:
    async def test_no_snapshot_misses_another_change(self, two: Two) -> None:
        one, (here, there) = await stocked(two[0]), two
        join, price = one.joins[0], one.prices[0]
        for turn in range(ROUNDS):
            await raced(
                change(here, "Package", one.id, sequence=turn),
                change(there, "PackagePlan", price.id, credits_micros=turn),
                change(here, "PackageFeature", join.id, sequence=turn),
                change_feature(there, join.feature_id, sequence=turn),
                change_feature(here, one.joins[1].feature_id, sequence=turn),
                change(there, "Plan", price.plan_id, sequence=turn),
                include(here, one.id),
                new_price(there, one.id),
            )
            await assert_present(here, one.id)
        rows = await histories(here, one.id)
        digests = [row.content_sha256 for row in rows]
        assert all(a != b for a, b in pairwise(digests))

    async def test_none_misses_a_part_that_comes_in(self, two: Two) -> None:
        """Who changes a feature looks for the packages that have it: one more may be on its way."""
        here, there = two
        for turn in range(ROUNDS):
            made, feature = await new_package(here), await new_feature(here)
            join = await include(here, made.id, feature.id, is_active=False)
            await raced(
                change(here, "PackageFeature", join.id, is_active=True),
                change_feature(there, feature.id, sequence=turn + 1),
            )
            await assert_present(here, made.id)

    async def test_none_misses_a_plan_that_is_deleted(self, two: Two) -> None:
        here, there = two
        one = await stocked(here)
        for turn in range(ROUNDS):
            price = await new_price(here, one.id)
            await raced(
                call(here, "DeletePackagePlan", id=price.id),
                change(there, "Plan", price.plan_id, sequence=turn + 1),
            )
            await assert_present(here, one.id)
