"""One initial package, and one initial price of each: the first by itself, then by choice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc
import pytest

from tests.catalog.package_calls import (
    call,
    change,
    new_package,
    new_plan,
    new_price,
    package,
    price,
)
from tests.conftest import MongoClient
from tests.ledger.calls import refused
from tests.serving import Served, new_key, reason_of, serving

RACERS = 12
DATABASE = f"test_{new_key()[:16]}"

Two = tuple[Served, Served]


@pytest.fixture(scope="module")
async def servers(mongo_url: str, mongo_client: MongoClient) -> AsyncIterator[Two]:
    """Two servers on one database of their own."""
    async with serving(mongo_url, DATABASE) as one, serving(mongo_url, DATABASE) as other:
        yield one, other
    await mongo_client.drop_database(DATABASE)


@pytest.fixture
async def two(servers: Two, mongo_client: MongoClient) -> Two:
    """Both, without any packages."""
    for name in ("packages", "package_plans"):
        await mongo_client[DATABASE][name].delete_many({})
    return servers


@pytest.fixture
def alone(two: Two) -> Served:
    """One of them."""
    return two[0]


async def initial(served: Served) -> list[str]:
    """The live packages that are initial."""
    answer = await call(served, "ListPackages", filter="is_initial = true")
    return [one.id for one in answer.packages]


async def initial_prices(served: Served, package_id: str) -> list[str]:
    query = f"package_id = {package_id} AND is_initial = true"
    answer = await call(served, "ListPackagePlans", filter=query)
    return [one.id for one in answer.package_plans]


class TestPackages:
    async def test_the_first_is_by_itself(self, alone: Served) -> None:
        first = await new_package(alone)
        assert first.is_initial
        assert (await package(alone, first.id)) == first
        second = await new_package(alone)
        assert not second.is_initial
        assert await initial(alone) == [first.id]

    async def test_another_takes_it(self, alone: Served) -> None:
        first = await new_package(alone)
        second = await new_package(alone, is_initial=True)
        assert second.is_initial
        former = await package(alone, first.id)
        assert not former.is_initial
        assert former.etag != first.etag
        again = await change(alone, "Package", first.id, is_initial=True)
        assert again.is_initial
        assert await initial(alone) == [first.id]

    async def test_it_is_not_laid_down(self, alone: Served) -> None:
        first = await new_package(alone)
        # It is the only one, but it would still be none.
        for _ in range(2):
            with refused("INITIAL_REQUIRED") as refusal:
                await change(alone, "Package", first.id, "is_initial")
            assert refusal.metadata == {"id": first.id}
            assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
            await new_package(alone)
        for verb in ("Delete", "Purge"):
            with refused("INITIAL_REQUIRED") as refusal:
                await call(alone, f"{verb}Package", id=first.id)
            assert refusal.metadata == {"id": first.id}
        assert await package(alone, first.id) == first

    async def test_the_last_one_may_go(self, alone: Served) -> None:
        first, second = await new_package(alone), await new_package(alone)
        await call(alone, "DeletePackage", id=second.id)
        await call(alone, "DeletePackage", id=first.id)
        third = await new_package(alone)
        assert third.is_initial
        await call(alone, "PurgePackage", id=third.id)
        assert await initial(alone) == []

    async def test_all_may_go_at_once(self, alone: Served) -> None:
        ids = [(await new_package(alone)).id for _ in range(3)]
        with refused("INITIAL_REQUIRED"):
            await call(alone, "BatchDeletePackages", ids=ids[:2])
        await call(alone, "BatchDeletePackages", ids=ids)

    async def test_one_that_comes_back_does_not_make_two(self, alone: Served) -> None:
        first = await new_package(alone)
        await call(alone, "DeletePackage", id=first.id)
        second = await new_package(alone)
        back = (await call(alone, "RestorePackage", id=first.id)).package
        assert not back.is_initial
        assert await initial(alone) == [second.id]

    async def test_one_that_comes_back_alone_is_it(self, alone: Served) -> None:
        first, second = await new_package(alone), await new_package(alone)
        await call(alone, "BatchDeletePackages", ids=[first.id, second.id])
        assert (await call(alone, "RestorePackage", id=second.id)).package.is_initial
        assert not (await call(alone, "RestorePackage", id=first.id)).package.is_initial


class TestPrices:
    async def test_each_package_has_its_own(self, served: Served) -> None:
        packages = [await new_package(served) for _ in range(2)]
        prices = [[await new_price(served, one.id) for _ in range(2)] for one in packages]
        for one, (first, second) in zip(packages, prices, strict=True):
            assert (first.is_initial, second.is_initial) == (True, False)
            assert await initial_prices(served, one.id) == [first.id]
        taken = await change(served, "PackagePlan", prices[0][1].id, is_initial=True)
        assert taken.is_initial
        assert not (await price(served, prices[0][0].id)).is_initial
        assert (await price(served, prices[1][0].id)).is_initial

    async def test_it_is_not_laid_down(self, served: Served) -> None:
        made = await new_package(served)
        first, second = await new_price(served, made.id), await new_price(served, made.id)
        for work in (
            change(served, "PackagePlan", first.id, "is_initial"),
            call(served, "DeletePackagePlan", id=first.id),
            call(served, "PurgePackagePlan", id=first.id),
        ):
            with refused("INITIAL_REQUIRED") as refusal:
                await work
            assert refusal.metadata == {"id": first.id}
        await call(served, "BatchDeletePackagePlans", ids=[first.id, second.id])
        back = (await call(served, "RestorePackagePlan", id=second.id)).package_plan
        assert back.is_initial
        back = (await call(served, "RestorePackagePlan", id=first.id)).package_plan
        assert not back.is_initial


async def raced(*calls: Awaitable[Any]) -> list[str]:
    """The reasons of those that were refused."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    reasons = []
    for result in results:
        if isinstance(result, grpc.aio.AioRpcError):
            reasons.append(reason_of(result))
        elif isinstance(result, BaseException):
            raise result
    return reasons


class TestRaces:
    async def test_many_would_be_it(self, two: Two) -> None:
        ids = [(await new_package(two[0])).id for _ in range(RACERS)]
        for _ in range(3):
            calls = [
                change(two[i % 2], "Package", row_id, is_initial=True)
                for i, row_id in enumerate(ids)
            ]
            assert set(await raced(*calls)) <= {"CONTENTION"}
            assert len(await initial(two[0])) == 1

    async def test_many_prices_would_be_it(self, two: Two) -> None:
        made = await new_package(two[0])
        ids = [(await new_price(two[0], made.id)).id for _ in range(RACERS)]
        calls = [
            change(two[i % 2], "PackagePlan", row_id, is_initial=True)
            for i, row_id in enumerate(ids)
        ]
        assert set(await raced(*calls)) <= {"CONTENTION"}
        assert len(await initial_prices(two[0], made.id)) == 1

    async def test_many_come_first(self, two: Two) -> None:
        calls = [new_package(two[i % 2]) for i in range(RACERS)]
        assert set(await raced(*calls)) <= {"CONTENTION"}
        assert len(await initial(two[0])) == 1

    async def test_it_goes_as_another_comes(self, two: Two) -> None:
        """Whichever is first, no live one is left without."""
        for _ in range(10):
            first = await new_package(two[0])
            going = call(two[0], "DeletePackage", id=first.id)
            reasons = await raced(going, new_package(two[1], value=f"v-{new_key()}"))
            assert set(reasons) <= {"CONTENTION", "INITIAL_REQUIRED"}
            live = (await call(two[0], "ListPackages")).packages
            assert sum(one.is_initial for one in live) == (1 if live else 0)
            await call(two[0], "BatchDeletePackages", ids=[one.id for one in live])

    async def test_it_goes_as_another_comes_back(self, two: Two) -> None:
        other = await new_package(two[0])
        for _ in range(10):
            await call(two[0], "DeletePackage", id=other.id)
            first = await new_package(two[0])
            going = call(two[0], "DeletePackage", id=first.id)
            reasons = await raced(going, call(two[1], "RestorePackage", id=other.id))
            assert set(reasons) <= {"CONTENTION", "INITIAL_REQUIRED"}
            live = (await call(two[0], "ListPackages")).packages
            assert sum(one.is_initial for one in live) == (1 if live else 0)
            if live:
                await call(two[0], "BatchDeletePackages", ids=[one.id for one in live])

    async def test_the_plan_of_a_new_price_stays(self, served: Served) -> None:
        made, plan = await new_package(served), await new_plan(served)
        await new_price(served, made.id, plan.id)
        with refused("STILL_REFERENCED"):
            await call(served, "DeletePlan", id=plan.id)
