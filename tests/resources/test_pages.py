"""Pages: every row once whatever else is written, tokens for one query, walks along indexes."""

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zaaz.catalog.v1 import feature_pb2 as pb

from server.kernel.errors import Reason
from server.mongo.database import Database
from server.resources import engine
from server.resources.table import collections
from tests.conftest import MongoClient
from tests.resources.calls import make, refused, row, values
from tests.resources.conftest import Catalog
from tests.resources.declared import FEATURE
from tests.serving import ManualClock

ORDERED = ["name", "sequence", "type", "parent_id", "created_time"]


@pytest.fixture(scope="module")
async def shelf(mongo_client: MongoClient) -> AsyncIterator[Catalog]:
    """An empty catalog for all examples of a property."""
    database = Database(mongo_client, "test_pages")
    await database.prepare(collections(FEATURE))
    yield Catalog(database, ManualClock())
    await mongo_client.drop_database("test_pages")


def rank(field: str, value: Any) -> Any:
    """Where a value sorts: what is not set comes first, text by its bytes."""
    if value is None:
        return (0,)
    return (1, value.encode() if field == "name" else value)


def in_order(rows: list[dict[str, Any]], order: list[tuple[str, bool]]) -> list[str]:
    """The rows' ids as the order has them; `order` has True for desc."""
    ranked = sorted(rows, key=lambda one: one["_id"], reverse=order[-1][1])
    for field, falls in reversed(order):
        ranked.sort(key=lambda one: rank(field, one.get(field)), reverse=falls)
    return [str(one["_id"]) for one in ranked]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    seed=st.integers(0, 2**32),
    order=st.lists(
        st.tuples(st.sampled_from(ORDERED), st.booleans()),
        min_size=1,
        max_size=3,
        unique_by=lambda part: part[0],
    ),
    size=st.integers(1, 7),
    filter=st.sampled_from(["", "is_active = true", "sequence < 1 OR type = other"]),
    show_deleted=st.booleans(),
)
async def test_every_row_comes_once_whatever_else_is_written(
    shelf: Catalog,
    seed: int,
    order: list[tuple[str, bool]],
    size: int,
    filter: str,  # noqa: A002 - as the request has it
    show_deleted: bool,
) -> None:
    rng = random.Random(seed)
    stored = shelf.database.collection("features")
    await stored.delete_many({})
    rows = [row(rng) for _ in range(30)]
    for one in rows:
        one["is_deleted"] = rng.random() < 0.2
    await stored.insert_many(rows)
    kept, others = rows[:20], rows[20:]
    request = pb.ListFeaturesRequest(
        order_by=", ".join(f"{name} desc" if falls else name for name, falls in order),
        page_size=size,
        filter=filter,
        show_deleted=show_deleted,
    )
    seen: list[str] = []
    while True:
        page = await shelf.call(request)
        seen += [one.id for one in page.features]
        request.page_token = page.next_page_token
        if not request.page_token:
            break
        assert len(page.features) == size
        # Beside the pages rows come and go, the one that the next page begins after included.
        await stored.insert_one(row(rng))
        if others:
            await stored.delete_one({"_id": others.pop()["_id"]})
    assert len(seen) == len(set(seen))
    wanted = [
        one for one in kept if matches(filter, one) and (show_deleted or not one["is_deleted"])
    ]
    known = {str(one["_id"]) for one in kept}
    assert [row_id for row_id in seen if row_id in known] == in_order(wanted, order)


def matches(text: str, one: dict[str, Any]) -> bool:
    if text == "is_active = true":
        return bool(one["is_active"])
    return not text or one["sequence"] < 1 or one["type"] == 3


async def test_a_token_is_for_its_query_alone(catalog: Catalog) -> None:
    for name in ("a", "b", "c"):
        await make(catalog, name)
    query: dict[str, Any] = {"filter": "sequence = 0", "order_by": "name", "page_size": 1}
    token = (await catalog.call(pb.ListFeaturesRequest(**query))).next_page_token
    assert await values(catalog, **query, page_token=token) == ["b"]
    assert await values(catalog, **{**query, "page_size": 5}, page_token=token) == ["b", "c"]
    others: list[dict[str, Any]] = [
        {"filter": "sequence = 1"},
        {"filter": ""},
        {"order_by": "name desc"},
        {"order_by": ""},
        {"search": "a"},
        {"show_deleted": True},
        {"page_token": token[:-2] + "AA"},
    ]
    for other in others:
        with refused(Reason.PAGE_TOKEN_INVALID):
            await values(catalog, **{**query, "page_token": token, **other})


async def test_search_is_by_how_a_name_or_value_begins(catalog: Catalog) -> None:
    await make(catalog, "chat.send", name="Ärger im Chat")
    await make(catalog, "other", name="CHATTER")
    assert await values(catalog, search="cHaT", order_by="name") == ["other", "chat.send"]
    assert await values(catalog, search="äRG") == ["chat.send"]
    assert await values(catalog, search="hat") == []
    assert await values(catalog, search="\x00") == []


async def test_total_size_is_counted_when_asked_and_up_to_a_bound(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await make(catalog, f"f{number}")
    asked = pb.ListFeaturesRequest(page_size=2, with_total_size=True)
    assert (await catalog.call(pb.ListFeaturesRequest(page_size=2))).total_size == 0
    first = await catalog.call(asked)
    assert first.total_size == 5
    asked.page_token = first.next_page_token
    assert (await catalog.call(asked)).total_size == 5
    monkeypatch.setattr(engine, "MAX_TOTAL_SIZE", 3)
    assert (await catalog.call(asked)).total_size == 3


async def test_a_page_of_large_rows_has_fewer(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await make(catalog, f"f{number}", description="x" * 1_000)
    monkeypatch.setattr(engine, "MAX_PAGE_BYTES", 2_500)
    request = pb.ListFeaturesRequest(order_by="name")
    sizes, seen = [], []
    while True:
        page = await catalog.call(request)
        sizes.append(len(page.features))
        seen += [one.value for one in page.features]
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert sizes == [2, 2, 1]
    assert seen == [f"f{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("text", "position", "field"),
    [
        ("description", 0, "description"),
        ("name, value", 6, "value"),
        ("name,", 0, ""),
        ("name up", 0, ""),
        ("name, ,", 5, ""),
        ("name, name desc", 6, "name"),
        (", name", 0, ""),
        ("name ASC", 0, ""),
    ],
)
async def test_an_order_that_cannot_be_is_refused_with_the_position(
    catalog: Catalog, text: str, position: int, field: str
) -> None:
    with refused(Reason.ORDER_BY_INVALID, position=position, field=field):
        await values(catalog, order_by=text)


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"show_deleted": True},
        {"order_by": "name desc"},
        {"order_by": "sequence", "show_deleted": True},
        {"order_by": "parent_id desc"},
        {"filter": "type = other"},
        {"filter": "type = other", "show_deleted": True},
        {"filter": "created_time > 2023-11-14T22:13:20Z"},
    ],
    ids=str,
)
async def test_a_late_page_looks_at_no_more_rows_than_the_first(
    catalog: Catalog, mongo_client: MongoClient, query: dict[str, Any]
) -> None:
    rng = random.Random(3)
    rows = [row(rng) for _ in range(3_000)]
    await catalog.database.collection("features").insert_many(rows)
    request = pb.ListFeaturesRequest(page_size=50, **query)
    database = mongo_client[catalog.database.name]
    await database.command({"profile": 2})
    for _ in range(10):
        request.page_token = (await catalog.call(request)).next_page_token
    await database.command({"profile": 0})
    finds = (
        await database["system.profile"]
        .find({"op": "query", "ns": {"$regex": "features$"}})
        .to_list()
    )
    assert 10 <= len(finds) <= 14
    for find in finds:
        assert "COLLSCAN" not in find["planSummary"]
        # Among many equal rows, deleted and live ones may be brought in order by their index keys.
        assert not find.get("hasSortStage") or "show_deleted" in query
        assert find["docsExamined"] <= 51, find["planSummary"]


async def test_a_search_looks_only_at_what_it_finds(
    catalog: Catalog, mongo_client: MongoClient
) -> None:
    rng = random.Random(3)
    rows = [row(rng) | {"search_keys": [f"name{i}", f"value{i}"]} for i in range(1_000)]
    await catalog.database.collection("features").insert_many(rows)
    database = mongo_client[catalog.database.name]
    await database.command({"profile": 2})
    found = await catalog.call(pb.ListFeaturesRequest(search="NAME99"))
    await database.command({"profile": 0})
    assert len(found.features) == 11
    (find,) = await database["system.profile"].find({"op": "query"}).to_list()
    assert find["docsExamined"] == 11
