"""Filters: what they find, held against plain Python, and what they refuse and where."""

import random
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from zaaz.catalog.v1 import feature_pb2 as pb

from server.kernel.errors import DomainError, Reason
from server.mongo.database import Database
from server.resources.fields import date, fields_of
from server.resources.queries import MAX_DEPTH, MAX_TERMS, parse_filter
from server.resources.table import collections
from tests.conftest import MongoClient
from tests.resources.calls import EPOCH_MS, NAMES, PARENTS, refused, row
from tests.resources.conftest import Catalog
from tests.resources.declared import FEATURE
from tests.serving import ManualClock

FIELDS = fields_of(pb.Feature.DESCRIPTOR, FEATURE.filterable)
COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}
TYPES = ["UNSPECIFIED", "WRITING", "GENERATION", "OTHER"]


class Expression(NamedTuple):
    """A filter, and whether a row is what it means. `level`: 0 AND, 1 OR, 2 everything else."""

    text: str
    holds: Callable[[dict[str, Any]], bool]
    level: int = 2


class Library(NamedTuple):
    catalog: Catalog
    rows: list[dict[str, Any]]


@pytest.fixture(scope="module")
async def library(mongo_client: MongoClient) -> AsyncIterator[Library]:
    database = Database(mongo_client, "test_filters")
    await database.prepare(collections(FEATURE))
    rng = random.Random(7)
    rows = [row(rng) for _ in range(150)]
    await database.collection("features").insert_many(rows)
    yield Library(Catalog(database, ManualClock()), rows)
    await mongo_client.drop_database("test_filters")


def quoted(text: str) -> st.SearchStrategy[str]:
    escaped = text.replace("\\", "\\\\")
    double = '"' + escaped.replace('"', '\\"') + '"'
    single = "'" + escaped.replace("'", "\\'") + "'"
    bare = [text] if text.isalnum() and text.isascii() else []
    return st.sampled_from([double, single, *bare])


def cased(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from([text, text.lower(), text.capitalize()])


@st.composite
def comparisons(draw: st.DrawFn) -> Expression:
    field = draw(st.sampled_from(["name", "parent_id", "type", "is_active", "sequence", "created"]))
    op = draw(st.sampled_from([*COMPARED, ":"]))
    if field in ("parent_id", "type", "is_active"):
        op = draw(st.sampled_from(["=", "!=", ":"]))
    value: Any
    if field == "name":
        value = draw(st.sampled_from(NAMES))
        literal = draw(quoted(value))
    elif field == "parent_id":
        value = draw(st.sampled_from([None, *PARENTS]))
        literal = '""' if value is None else draw(quoted(str(value)))
    elif field == "type":
        value = draw(st.integers(0, 3))
        literal = draw(cased(draw(st.sampled_from(["", "FEATURE_TYPE_"])) + TYPES[value]))
    elif field == "is_active":
        value = draw(st.booleans())
        literal = str(value).lower()
    elif field == "sequence":
        value = draw(st.integers(-3, 3))
        literal = draw(st.sampled_from([str(value), f'"{value}"']))
    else:
        field, value = "created_time", date(EPOCH_MS + draw(st.integers(-1, 4)))
        moment: datetime = value
        written = moment.isoformat(timespec="milliseconds")
        literal = draw(st.sampled_from([written.replace("+00:00", "Z"), f'"{written}"']))
    if op == ":" and draw(st.integers(0, 3)) == 0:
        return Expression(f"{field}:*", lambda row: row.get(field) not in (None, ""))
    space = draw(st.sampled_from(["", " ", "  "]))
    text = f"{field}{space}{op}{space}{literal}"
    if op == ":" and field == "name":
        return Expression(text, lambda row: row[field].startswith(value))
    compare = COMPARED["=" if op == ":" else op]
    return Expression(text, lambda row: compare(row.get(field), value))


@st.composite
def joined(draw: st.DrawFn, inner: st.SearchStrategy[Expression]) -> Expression:
    parts = draw(st.lists(inner, min_size=2, max_size=3))
    level = draw(st.integers(0, 1))
    # OR binds closer than AND, so only an AND within an OR needs its parentheses.
    texts = [
        f"({one.text})" if one.level <= level or draw(st.booleans()) else one.text for one in parts
    ]
    every = all if level == 0 else any
    word = " AND " if level == 0 else " OR "
    return Expression(word.join(texts), lambda row: every(p.holds(row) for p in parts), level)


def negated(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    return st.builds(
        lambda one, sign: Expression(f"{sign}({one.text})", lambda row: not one.holds(row)),
        inner,
        st.sampled_from(["NOT ", "NOT", "-"]),
    )


expressions = st.recursive(
    comparisons(), lambda inner: joined(inner) | negated(inner), max_leaves=12
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(expression=expressions)
async def test_finds_what_plain_python_finds(library: Library, expression: Expression) -> None:
    request = pb.ListFeaturesRequest(
        filter=expression.text, page_size=1_000, with_total_size=True, order_by="created_time"
    )
    answer = await library.catalog.call(request)
    found = {one.id for one in answer.features}
    assert found == {str(row["_id"]) for row in library.rows if expression.holds(row)}
    assert answer.total_size == len(found)


@pytest.mark.parametrize(
    ("text", "position", "field"),
    [
        ("nothing = 1", 0, "nothing"),
        ("  id = x", 2, "id"),
        ("name", 4, "name"),
        ("name ~ x", 5, "name"),
        ("name = ", 7, "name"),
        ("name = )", 7, "name"),
        ('name = "x', 7, "name"),
        ("name = x y = z", 9, ""),
        ("(name = x", 9, ""),
        ("name = x)", 8, ""),
        ("name = x AND", 12, ""),
        ("name = x AND OR name = y", 13, "OR"),
        ("type = SONG", 7, "type"),
        ("type < WRITING", 5, "type"),
        ("is_active > true", 10, "is_active"),
        ("is_active = yes", 12, "is_active"),
        ("is_active=true AND sequence = 1.5", 30, "sequence"),
        ("sequence = 9223372036854775808", 11, "sequence"),
        ("sequence = ٣", 11, "sequence"),
        ("parent_id = 12", 12, "parent_id"),
        ("parent_id > 65f0c3a1b2c3d4e5f6a7b8c9", 10, "parent_id"),
        ("created_time > yesterday", 15, "created_time"),
        ("created_time > 0001-01-01T00:00:00+10:00", 15, "created_time"),
        ("created_time > 9999-12-31T23:59:59-10:00", 15, "created_time"),
        ("max_word.free = 1", 0, "max_word.free"),
        ("$where = 1", 0, ""),
    ],
)
def test_refuses_with_the_position(text: str, position: int, field: str) -> None:
    with refused(Reason.FILTER_INVALID, position=position, field=field):
        parse_filter(text, FIELDS)


def test_depth_and_comparisons_are_bounded() -> None:
    deep = "(" * MAX_DEPTH + "name = x" + ")" * MAX_DEPTH
    assert parse_filter(deep, FIELDS)
    with refused(Reason.FILTER_INVALID, position=MAX_DEPTH + 1):
        parse_filter(f"({deep})", FIELDS)
    with refused(Reason.FILTER_INVALID):
        parse_filter("-" * (MAX_DEPTH + 1) + "name = x", FIELDS)
    wide = " AND ".join(["name = x"] * MAX_TERMS)
    assert parse_filter(wide, FIELDS)
    with refused(Reason.FILTER_INVALID):
        parse_filter(f"{wide} AND name = x", FIELDS)


def test_or_binds_closer_than_and() -> None:
    flat = parse_filter("name = a AND name = b OR name = c", FIELDS)
    assert flat == {"$and": [{"name": "a"}, {"$or": [{"name": "b"}, {"name": "c"}]}]}


@settings(max_examples=300, deadline=None)
@example("name = " + "\x00")
@given(st.text(alphabet="name=type()\"'\\ANDOR-:*<>! 1\x00é", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    refusal = None
    try:
        parse_filter(text, FIELDS)
    except DomainError as error:
        refusal = error
    if refusal is not None:
        assert refusal.reason is Reason.FILTER_INVALID
        assert 0 <= int(refusal.metadata["position"]) <= len(text)
