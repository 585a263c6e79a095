"""Filters on what rows may not have, or have several of, held against plain Python."""

import random
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, NamedTuple

import pytest
from bson import ObjectId
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zaaz.catalog.v1 import coupon_pb2 as pb

from server.catalog.packages.resources import COUPONS
from server.composition import RESOURCES
from server.kernel.paging import PageTokens
from server.mongo.database import Database
from server.resources.engine import Resources
from server.resources.fields import date
from server.resources.table import collections
from tests.conftest import MongoClient
from tests.resources.calls import EPOCH_MS
from tests.resources.test_filter import COMPARED, Expression, joined, negated
from tests.serving import SECRET, ManualClock

PACKAGES = [ObjectId() for _ in range(3)]
DATABASE = "test_filters_unset"
DAY_MS = 86_400_000


class Library(NamedTuple):
    resources: Resources
    rows: list[dict[str, Any]]


def row(rng: random.Random) -> dict[str, Any]:
    """A coupon as the engine stores it, with few different values, so that they meet."""
    fields: dict[str, Any] = {}
    if rng.random() < 0.6:
        fields["valid_until_time"] = date(EPOCH_MS + DAY_MS * rng.randrange(3))
    if named := rng.sample(PACKAGES, rng.randrange(4)):
        fields["applicable_package_ids"] = named
    row_id = ObjectId()
    return fields | {
        "_id": row_id,
        "code": str(row_id).upper(),
        "discount_type": rng.randrange(1, 4),
        "is_active": rng.random() < 0.5,
        "is_deleted": False,
        "created_time": date(EPOCH_MS),
        "updated_time": date(EPOCH_MS),
        "search_keys": [str(row_id)],
        "version": 1,
        "guard": 0,
    }


@pytest.fixture(scope="module")
async def library(mongo_client: MongoClient) -> AsyncIterator[Library]:
    database = Database(mongo_client, DATABASE)
    await database.prepare(collections(COUPONS))
    rng = random.Random(11)
    rows = [row(rng) for _ in range(120)]
    await database.collection("coupons").insert_many(rows)
    yield Library(Resources(database, ManualClock(), PageTokens(SECRET), RESOURCES), rows)
    await mongo_client.drop_database(DATABASE)


@st.composite
def on_times(draw: st.DrawFn) -> Expression:
    name = "valid_until_time"
    if draw(st.integers(0, 4)) == 0:
        return Expression(f"{name}:*", lambda row: name in row)
    op = draw(st.sampled_from([*COMPARED, ":"]))
    moment: datetime = date(EPOCH_MS + DAY_MS * draw(st.integers(-1, 3)))
    compare = COMPARED["=" if op == ":" else op]
    # What is not there is other than any, and neither before nor after.
    unset = op == "!="
    return Expression(
        f"{name} {op} {moment.isoformat()}",
        lambda row: compare(row[name], moment) if name in row else unset,
    )


@st.composite
def on_packages(draw: st.DrawFn) -> Expression:
    name = "applicable_package_ids"
    if draw(st.integers(0, 4)) == 0:
        return Expression(f"{name}:*", lambda row: name in row)
    wanted = draw(st.sampled_from([*PACKAGES, ObjectId()]))
    quote = draw(st.sampled_from(["", '"', "'"]))
    text = f"{name} : {quote}{wanted}{quote}"
    return Expression(text, lambda row: wanted in row.get(name, ()))


@st.composite
def on_flags(draw: st.DrawFn) -> Expression:
    value = draw(st.booleans())
    return Expression(f"is_active = {str(value).lower()}", lambda row: row["is_active"] is value)


expressions = st.recursive(
    on_times() | on_packages() | on_flags(),
    lambda inner: joined(inner) | negated(inner),
    max_leaves=10,
)


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(expression=expressions)
async def test_finds_what_plain_python_finds(library: Library, expression: Expression) -> None:
    request = pb.ListCouponsRequest(filter=expression.text, page_size=1_000, with_total_size=True)
    page = await library.resources.page(COUPONS, request)
    found = {one.id for one in page.messages}
    assert found == {str(one["_id"]) for one in library.rows if expression.holds(one)}
    assert page.total_size == len(found)
