"""Parts of an interaction: redacted, cut to size, and JSON whatever they were."""

import math
from typing import Any

import orjson
import pytest
from google.protobuf.struct_pb2 import NULL_VALUE, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from server.credits.feature_usage.parts import MAX_DEPTH, MAX_PART_BYTES, TOO_DEEP, keep
from server.credits.feature_usage.secrets import REDACTED

SECRET = "hunter2-and-more"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
numbers = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(texts, inner, max_size=6),
    max_leaves=40,
)
harmless = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**6).map(float) | st.text("ab $.\0é", max_size=9),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.text("ab $.\0é", max_size=5), inner, max_size=6)
    ),
    max_leaves=40,
)


def proto(python: Any) -> Value:
    value = Value()
    match python:
        case None:
            value.null_value = NULL_VALUE
        case bool():
            value.bool_value = python
        case float() | int():
            value.number_value = python
        case str():
            value.string_value = python
        case list():
            value.list_value.SetInParent()
            for item in python:
                value.list_value.values.append(proto(item))
        case dict():
            value.struct_value.SetInParent()
            for key, item in python.items():
                value.struct_value.fields[key].CopyFrom(proto(item))
    return value


def kept(python: Any) -> Any:
    part = keep(proto(python))
    assert len(part.text.encode()) <= MAX_PART_BYTES
    return orjson.loads(part.text)


@given(harmless)
def test_what_fits_and_hides_nothing_is_kept_as_it_is(python: Any) -> None:
    part = keep(proto(python))
    assert orjson.loads(part.text) == python
    assert not part.truncated


@settings(deadline=None)
@given(values, st.integers(0, 3_000))
def test_any_value_becomes_json_of_bounded_size_and_always_the_same(
    python: Any, repeats: int
) -> None:
    many = [python] * repeats
    first, second = keep(proto(many)), keep(proto(many))
    assert first == second
    assert len(first.text.encode()) <= MAX_PART_BYTES
    orjson.loads(first.text)


@given(texts, values)
def test_what_stands_under_a_secret_key_is_struck_out_at_any_depth(key: str, beside: Any) -> None:
    python = {f"my_password {key}": SECRET, "beside": [{"authorization": {"scheme": SECRET}}]}
    text = keep(proto([{"x": [python]}, beside])).text
    assert SECRET not in text
    assert text.count(REDACTED) >= 2


def test_secrets_are_struck_out_whatever_their_kind() -> None:
    python = {"password": 12.0, "pin": [1.0], "secret": {"a": "b"}, "token": True, "cvv": None}
    assert kept(python) == {**dict.fromkeys(python, REDACTED), "cvv": None}
    assert kept({"card": 4242424242424242.0}) == {"card": REDACTED}
    assert kept({"max_tokens": 12.0}) == {"max_tokens": 12.0}
    assert kept({"Bearer abcdefgh1": 1.0}) == {REDACTED: 1.0}
    assert kept("sent with Bearer abcdefgh1") == f"sent with {REDACTED}"


@pytest.mark.parametrize("size", [MAX_PART_BYTES - 2, MAX_PART_BYTES - 1, 10 * MAX_PART_BYTES])
def test_a_long_text_is_shortened(size: int) -> None:
    part = keep(proto("é" * (size // 2)))
    assert part.truncated is (size // 2 * 2 > MAX_PART_BYTES - 2)
    text = orjson.loads(part.text)
    assert set(text) == {"é"}
    assert len(part.text.encode()) > MAX_PART_BYTES - 4


def test_control_characters_count_as_json_writes_them() -> None:
    part = keep(proto("\0" * MAX_PART_BYTES))
    assert part.truncated
    assert MAX_PART_BYTES - 8 < len(part.text) <= MAX_PART_BYTES


def test_a_secret_across_the_cut_is_struck_out() -> None:
    for before in range(MAX_PART_BYTES - 30, MAX_PART_BYTES + 4):
        text = keep(proto("x" * before + " 4242424242424242 " + "y" * 999)).text
        assert "4242" not in text


def test_of_a_long_list_the_first_items_stay() -> None:
    part = keep(proto([float(n) for n in range(10_000)]))
    numbers_kept = orjson.loads(part.text)
    assert part.truncated
    assert numbers_kept == [float(n) for n in range(len(numbers_kept))]
    assert len(numbers_kept) > 2_000


def test_of_a_large_object_the_first_keys_stay() -> None:
    python = {f"{n:05}": "x" * 100 for n in range(1_000)}
    part = keep(proto(python))
    fields = orjson.loads(part.text)
    assert part.truncated
    assert list(fields) == sorted(python)[: len(fields)]
    assert len(fields) > 100


def test_what_is_nested_too_deep_is_left_out() -> None:
    python: Any = "inside"
    for _ in range(MAX_DEPTH):
        python = [python]
    assert not keep(proto(python)).truncated
    part = keep(proto([python]))
    assert part.truncated
    assert TOO_DEEP in part.text
    assert "inside" not in part.text


def test_numbers_that_json_lacks_are_text() -> None:
    assert kept([math.inf, -math.inf, math.nan]) == ["Infinity", "-Infinity", "NaN"]


def test_a_value_without_any_kind_is_null() -> None:
    assert keep(Value()).text == "null"
