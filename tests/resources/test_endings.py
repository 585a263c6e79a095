"""What is done when all else of a transaction is done: once per key, within it."""

from dataclasses import replace
from typing import Any

from bson import ObjectId
from zaaz.catalog.v1 import feature_pb2 as pb

from server.kernel.errors import Reason, field_invalid
from server.kernel.paging import PageTokens
from server.resources.changes import Changes
from server.resources.engine import Resources
from tests.resources.calls import change, get, make, refused, values
from tests.resources.conftest import Catalog
from tests.resources.declared import FEATURE
from tests.serving import SECRET, new_key

ROW = {"name": "x", "type": 0, "is_active": True, "sequence": 0}


class Ending:
    """Keeps what it saw: the values of the rows that there were."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    async def __call__(self, changes: Changes) -> None:
        self.seen.append([row["value"] for row in await changes.find(FEATURE, {})])


async def run(catalog: Catalog, work: Any) -> None:
    async def answered(changes: Changes) -> pb.PurgeFeatureResponse:
        await work(changes)
        return pb.PurgeFeatureResponse()

    request = pb.PurgeFeatureRequest(request_id=new_key())
    await catalog.resources.run(request, pb.PurgeFeatureResponse, answered, "tests")


async def test_it_sees_all_and_is_called_once(catalog: Catalog) -> None:
    first, second, other = Ending(), Ending(), Ending()

    async def work(changes: Changes) -> None:
        assert changes.at_end("a", first) is first
        await changes.create(FEATURE, {**ROW, "value": "one"})
        assert changes.at_end("a", second) is first
        changes.at_end("b", other)
        await changes.create(FEATURE, {**ROW, "value": "two"})
        assert not first.seen

    await run(catalog, work)
    assert (first.seen, second.seen, other.seen) == ([["one", "two"]], [], [["one", "two"]])


async def test_what_it_asks_for_comes_after_it(catalog: Catalog) -> None:
    later = Ending()

    async def ending(changes: Changes) -> None:
        changes.at_end("later", later)
        await changes.create(FEATURE, {**ROW, "value": "late"})

    async def work(changes: Changes) -> None:
        changes.at_end("first", ending)

    await run(catalog, work)
    assert later.seen == [["late"]]
    assert catalog.refreshed == 1


async def test_what_it_refuses_is_undone(catalog: Catalog) -> None:
    async def ending(_: Changes) -> None:
        raise field_invalid("x", "is not so")

    async def work(changes: Changes) -> None:
        await changes.create(FEATURE, {**ROW, "value": "one"})
        changes.at_end("x", ending)

    with refused(Reason.FIELD_INVALID):
        await run(catalog, work)
    assert await values(catalog) == []


async def test_of_work_that_failed_none_is_called(catalog: Catalog) -> None:
    ending = Ending()

    async def work(changes: Changes) -> None:
        changes.at_end("x", ending)
        await changes.get(FEATURE, [ObjectId()])

    with refused(Reason.RESOURCE_NOT_FOUND):
        await run(catalog, work)
    assert not ending.seen


async def test_lost_there_all_of_it_runs_again(catalog: Catalog) -> None:
    made = await make(catalog, "chat")
    tries = 0

    async def ending(changes: Changes) -> None:
        nonlocal tries
        tries += 1
        (row,) = await changes.get(FEATURE, [ObjectId(made.id)])
        if tries == 1:
            await change(catalog, made, "name", name="theirs")
        await changes.update(FEATURE, row, {**row, "sequence": tries})

    async def work(changes: Changes) -> None:
        changes.at_end("x", ending)

    await run(catalog, work)
    row = await get(catalog, made)
    assert (tries, row.name, row.sequence) == (2, "theirs", 2)


async def test_a_guard_may_change_its_row(catalog: Catalog) -> None:
    """Whatever the verb, what it says is what is stored and given back."""

    async def guard(changes: Changes, new: Any, _old: Any) -> None:
        new["path"] = "/deleted" if new["is_deleted"] else f"/{new['value']}"

    guarded = replace(FEATURE, guard=guard)
    resources = Resources(catalog.database, catalog.clock, PageTokens(SECRET), (guarded,))
    stored = catalog.database.collection("features")
    paths: list[str] = []

    async def work(changes: Changes) -> pb.PurgeFeatureResponse:
        made = await changes.create(guarded, {**ROW, "value": "one"})
        changed = await changes.update(guarded, made, {**made, "value": "two"})
        (deleted,) = await changes.delete(guarded, [changed])
        paths.extend(row["path"] for row in (made, changed, deleted))
        return pb.PurgeFeatureResponse()

    await resources.run(pb.PurgeFeatureRequest(), pb.PurgeFeatureResponse, work, "tests")
    assert paths == ["/one", "/two", "/deleted"]
    row = await stored.find_one({})
    assert row is not None
    assert row["path"] == "/deleted"
