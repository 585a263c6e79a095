"""Catalogs as YAML: nothing is lost on the way there and back, and what is wrong is told."""

import re
import subprocess
import sys
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from zaaz.catalog.v1 import catalog_document_pb2 as pb
from zaaz.catalog.v1.coupon_pb2 import Coupon
from zaaz.catalog.v1.feature_endpoint_pb2 import FeatureEndpoint
from zaaz.catalog.v1.feature_pb2 import Feature
from zaaz.catalog.v1.feature_popup_pb2 import FeaturePopup
from zaaz.catalog.v1.package_feature_pb2 import PackageFeature
from zaaz.catalog.v1.package_pb2 import Package
from zaaz.catalog.v1.package_plan_pb2 import PackagePlan
from zaaz.catalog.v1.plan_pb2 import Plan
from zaaz_client.catalog_files import (
    CatalogFileError,
    read_catalog,
    show_difference,
    write_catalog,
)
from zaaz_client.catalog_files.fields import NAMED_BY, fields_of
from zaaz_client.catalog_files.values import read_decimal, write_decimal

from server.catalog.document.kinds import KINDS
from tests.catalog.documents import endpoint, feature, popup, shop

WHOLE = """
features:
  chat:
    name: Chat
    type: writing
    max_word: {free: 500, paid: 5000}
    endpoints:
      chat.send:
        name: Send
        method: POST
        endpoint: /v1/chat
        credits: "0.5"
        captured_parts: [query, payload]
    popups:
      hello: {name: Hello, category: single_time, delay_ms: 2000}
    features:
      rewrite: {name: Rewrite, active: false}
  later: {name: Later, parent: other}
endpoints:
  other.go: {name: Go, feature: other}
plans:
  Every month: {days: 30}
packages:
  pro:
    name: Pro
    type: subscription
    points: [Much, "100"]
    plans:
      Every month: {price: {usd: 9.99, bdt: "1100"}, credits: 1000, initial: true}
    features: [chat, rewrite]
  free:
    features:
      chat: {sequence: 7}
coupons:
  WELCOME:
    type: percentage
    percent: 12.5
    valid_until: 2027-02-01
    packages: [pro]
"""


def problems_of(text: str) -> list[str]:
    with pytest.raises(CatalogFileError) as caught:
        read_catalog(text, "x.yaml")
    return list(caught.value.problems)


def rows(document: pb.CatalogDocument) -> dict[str, list[str]]:
    """The document's rows in no order."""
    return {field.name: sorted(map(repr, value)) for field, value in document.ListFields()}


class TestReading:
    def test_a_whole_file(self) -> None:
        document = read_catalog(WHOLE, "x.yaml").document
        assert [(one.feature.value, one.parent) for one in document.features] == [
            ("chat", ""),
            ("rewrite", "chat"),
            ("later", "other"),
        ]
        chat = document.features[0].feature
        assert (chat.name, chat.type, chat.max_word.paid, chat.is_active) == ("Chat", 1, 5000, True)
        assert not document.features[1].feature.is_active
        send, go = document.feature_endpoints
        assert (send.feature, send.feature_endpoint.credits_micros) == ("chat", 500_000)
        assert list(send.feature_endpoint.captured_parts) == [2, 3]
        assert (go.feature, go.feature_endpoint.value) == ("other", "other.go")
        assert document.feature_popups[0].feature_popup.delay_ms == 2_000
        pro, free = document.packages
        price = pro.plans[0].package_plan
        assert (pro.plans[0].plan, price.price.usd_micros) == ("Every month", 9_990_000)
        assert price.price.bdt_micros == 1_100_000_000
        assert (price.credits_micros, price.is_initial) == (1_000_000_000, True)
        assert list(pro.package.points) == ["Much", "100"]
        assert [(one.feature, one.package_feature.sequence) for one in pro.features] == [
            ("chat", 1),
            ("rewrite", 2),
        ]
        assert free.features[0].package_feature.sequence == 7
        coupon = document.coupons[0]
        assert (coupon.coupon.discount_ppm, list(coupon.packages)) == (125_000, ["pro"])
        assert coupon.coupon.valid_until_time.ToJsonString() == "2027-02-01T00:00:00Z"

    def test_a_file_of_nothing(self) -> None:
        for text in ("", "{}", "features:\npackages: {}\n", "# nothing"):
            assert read_catalog(text, "x.yaml").document == pb.CatalogDocument()

    def test_what_an_alias_stands_for(self) -> None:
        text = "packages:\n  a: &same {name: A}\n  b: *same\n"
        document = read_catalog(text, "x.yaml").document
        assert [one.package.name for one in document.packages] == ["A", "A"]

    def test_aliases_that_make_too_many(self) -> None:
        text = "features:\n  a0: &a0 {name: A}\n"
        for i in range(1, 12):
            inner = ", ".join(f"{name}: *a{i - 1}" for name in "abcdefgh")
            text += f"  a{i}: &a{i} {{features: {{{inner}}}}}\n"
        assert "more than 20,000 rows" in problems_of(text)[-1]

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("a: [", "x.yaml:2:1: "),
            ("packges: {}", "x.yaml:1:1: unknown key 'packges'; is 'packages' meant?"),
            ("plans:\n  m:\n    dayz: 3", "x.yaml:3:5: unknown key 'dayz'; is 'days' meant?"),
            ("plans: {m: {days: 3.5}}", "x.yaml:1:19: '3.5' is no whole number"),
            ("plans: {m: {days: 99999999999}}", "x.yaml:1:19: 99999999999 is too large"),
            ("plans: {m: {active: yes}}", "x.yaml:1:21: 'yes' is neither true nor false"),
            ("plans: {m: {days: [1]}}", "x.yaml:1:19: days must be one value"),
            ("plans: [m]", "x.yaml:1:8: must be `key: value` pairs"),
            ("plans: {m: {days: 1}, m: {}}", "x.yaml:1:23: 'm' comes twice"),
            ("packages: {p: {points: x}}", "x.yaml:1:24: must be a list"),
            ("packages: {p: {features: [[a]]}}", "x.yaml:1:27: must be a name"),
            (
                "packages: {p: {type: credit}}",
                "x.yaml:1:22: unknown value 'credit'; is 'credits' meant?",
            ),
            (
                "packages: {p: {plans: {m: {price: {usd: 0.1234567}}}}}",
                "x.yaml:1:41: '0.1234567' has more than 6 decimals",
            ),
            (
                "packages: {p: {plans: {m: {credits: 1e3}}}}",
                "x.yaml:1:37: '1e3' is no number like 9.99",
            ),
            ("coupons: {C: {percent: 1.00001}}", "x.yaml:1:24: '1.00001' has more than 4 decimals"),
            (
                "coupons: {C: {valid_from: 2027-01-31 10:00}}",
                "x.yaml:1:27: '2027-01-31 10:00' is no time like 2027-01-31 or 2027-01-31T",
            ),
        ],
    )
    def test_what_is_wrong(self, text: str, told: str) -> None:
        (problem,) = problems_of(text)
        assert problem.startswith(told)

    def test_everything_that_is_wrong(self) -> None:
        text = "plans:\n" + "".join(f"  p{i}: {{x: 1}}\n" for i in range(30))
        problems = problems_of(text)
        assert len(problems) == 21
        assert problems[-1] == "and 10 more"
        assert [int(one.split(":")[1]) for one in problems[:20]] == list(range(2, 22))

    def test_where_things_stand(self) -> None:
        read = read_catalog(WHOLE, "x.yaml")
        lines = WHOLE.splitlines()

        def at(path: str) -> str:
            place = read.place(path)
            assert place is not None
            return lines[place.line - 1][place.column - 1 :]

        assert at("document.features[1].feature.name").startswith("name: Rewrite")
        assert at("document.features[1].feature.value").startswith("rewrite:")
        assert at("document.features[2].parent") == "other}"
        assert at("document.packages[0].plans[0].plan").startswith("Every month:")
        assert at("document.packages[0].plans[0].package_plan.price.bdt_micros").startswith("bdt:")
        assert at("document.packages[0].features[1].feature") == "rewrite]"
        assert at("document.coupons[0].packages[0]") == "pro]"
        assert read.place("document") is None
        assert read.place("reason") is None


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000])
def test_a_file_that_nests_too_deep_is_told(text: str) -> None:
    # In a process of its own: the reader has no bound, and crashed where it had no more stack.
    code = (
        "import sys; from zaaz_client.catalog_files import CatalogFileError, read_catalog\n"
        "try: read_catalog(sys.stdin.read(), 'f')\n"
        "except CatalogFileError as error: print(error)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], input=text, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, "within each other" in ran.stdout) == (0, True), ran.stderr


class TestAmounts:
    @given(st.integers(-(2**63), 2**63 - 1), st.sampled_from([4, 6]))
    def test_there_and_back(self, units: int, decimals: int) -> None:
        text = write_decimal(units, decimals)
        assert read_decimal(text, decimals) == units
        assert re.fullmatch(r"-?(0|[1-9]\d*)(\.\d*[1-9])?", text)

    def test_exactly(self) -> None:
        assert read_decimal("9007199254.740993", 6) == 9_007_199_254_740_993
        assert read_decimal("0.10000000", 6) == 100_000


class TestWriting:
    def test_there_and_back(self) -> None:
        text = write_catalog(shop())
        assert rows(read_catalog(text, "x.yaml").document) == rows(shop())

    def test_it_is_pleasant(self) -> None:
        text = write_catalog(read_catalog(WHOLE, "x.yaml").document)
        assert "      Every month:\n        price: {usd: 9.99, bdt: 1100}\n" in text
        assert "    features: [chat, rewrite]\n" in text
        assert "    valid_until: 2027-02-01\n" in text
        assert "    percent: 12.5\n" in text
        assert "        method: post\n" in text
        assert "    parent: other\n" in text

    def test_of_nothing(self) -> None:
        assert read_catalog(write_catalog(pb.CatalogDocument()), "x").document.ByteSize() == 0

    def test_circles_are_told_rather_than_lost(self) -> None:
        document = pb.CatalogDocument(features=[feature("a", "b"), feature("b", "a")])
        assert rows(read_catalog(write_catalog(document), "x").document) == rows(document)

    def test_of_others_features(self) -> None:
        document = pb.CatalogDocument(
            feature_endpoints=[endpoint("e", "a")], feature_popups=[popup("p", "a")]
        )
        assert rows(read_catalog(write_catalog(document), "x").document) == rows(document)


@pytest.mark.parametrize(
    ("resource", "field", "text", "shown"),
    [
        ("package_plans", "credits_micros", '"1500000"', ("credits", "1.5")),
        ("package_plans", "price", '{"usd_micros":"9990000"}', ("price", "{usd: 9.99}")),
        ("features", "type", '"FEATURE_TYPE_WRITING"', ("type", "writing")),
        ("features", "max_word", '{"free":"1","paid":"0"}', ("max_word", "{free: 1}")),
        ("features", "parent", '"ai"', ("parent", "ai")),
        ("features", "is_active", "false", ("active", "false")),
        ("features", "description", '"a\\nb"', ("description", "a b")),
        ("packages", "points", '["a","b, c"]', ("points", "[a, 'b, c']")),
        ("coupons", "discount_ppm", '"125000"', ("percent", "12.5")),
        ("coupons", "packages", '["a","b"]', ("packages", '["a","b"]')),
        ("coupons", "valid_from_time", "", ("valid_from", "")),
        ("coupons", "description", '"cut… 9 more', ("description", "cut… 9 more")),
        ("others", "new", '{"a":1}', ("new", '{"a":1}')),
        ("plans", "new", "[1]", ("new", "[1]")),
    ],
)
def test_differences_are_shown_as_a_file_says_them(
    resource: str, field: str, text: str, shown: tuple[str, str]
) -> None:
    difference = pb.FieldDifference(field=field, before=text, after=text)
    key, before, after = show_difference(resource, difference)
    assert ((key, before), before) == (shown, after)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.collection)
def test_a_file_has_every_field_that_a_document_says(kind: Any) -> None:
    descriptor = kind.resource.message.DESCRIPTOR
    said = {field.name for field in fields_of(descriptor).values()}
    assert said | {NAMED_BY.get(descriptor.name, "")} - {""} == set(kind.settable)
    assert len(fields_of(descriptor)) == len(said)


# Any document

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}", fullmatch=True)
TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"), max_size=30
)


def messages(kind: type[Message]) -> st.SearchStrategy[Any]:
    """Any that a file can say."""
    descriptor: Any = kind.DESCRIPTOR
    values = {field.name: _values(field.descriptor) for field in fields_of(descriptor).values()}
    return st.fixed_dictionaries({}, optional=values).map(lambda fields: kind(**fields))


def _values(field: Any) -> st.SearchStrategy[Any]:
    one = _one(field)
    return st.lists(one, max_size=3) if field.is_repeated else one


def _one(field: Any) -> st.SearchStrategy[Any]:
    from google.protobuf import message_factory
    from google.protobuf.timestamp_pb2 import Timestamp

    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values if value.number])
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.Timestamp":
            return st.builds(
                Timestamp,
                seconds=st.integers(0, 253_402_300_799),
                nanos=st.sampled_from([0, 1_000_000, 999_999_999]),
            )
        return messages(message_factory.GetMessageClass(field.message_type))
    kinds = {"bool": st.booleans(), "str": TEXT}
    bits = {field.CPPTYPE_INT32: 31, field.CPPTYPE_INT64: 63}.get(field.cpp_type)
    if bits:
        return st.integers(-(2**bits), 2**bits - 1)
    return kinds["bool" if field.cpp_type == field.CPPTYPE_BOOL else "str"]


def named(message: Any, name: str) -> Any:
    setattr(message, NAMED_BY[message.DESCRIPTOR.name], name)
    return message


@st.composite
def documents(draw: st.DrawFn) -> pb.CatalogDocument:
    names = st.lists(NAMES, max_size=3, unique=True)

    def many(kind: type[Message]) -> list[Any]:
        return [named(draw(messages(kind)), name) for name in draw(names)]

    document = pb.CatalogDocument()
    features = many(Feature)
    for i, one in enumerate(features):
        parents = ["", *(other.value for other in features[:i])]
        document.features.add(feature=one, parent=draw(st.sampled_from(parents)))
    of = st.sampled_from([one.value for one in features]) if features else NAMES
    for row in many(FeatureEndpoint):
        document.feature_endpoints.add(feature_endpoint=row, feature=draw(of))
    for row in many(FeaturePopup):
        document.feature_popups.add(feature_popup=row, feature=draw(of))
    for row in many(Plan):
        document.plans.add(plan=row)
    for row in many(Package):
        package = document.packages.add(package=row)
        for name in draw(names):
            package.plans.add(package_plan=draw(messages(PackagePlan)), plan=name)
        for name in draw(names):
            package.features.add(package_feature=draw(messages(PackageFeature)), feature=name)
    for row in many(Coupon):
        document.coupons.add(coupon=row, packages=draw(names))
    return document


@settings(max_examples=60, deadline=None)
@given(documents())
def test_any_document_there_and_back(document: pb.CatalogDocument) -> None:
    text = write_catalog(document)
    assert rows(read_catalog(text, "x.yaml").document) == rows(document)
    assert write_catalog(read_catalog(text, "x.yaml").document) == text
