"""What a document may not say, and how its author is told."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from zaaz.catalog.v1 import catalog_document_pb2 as pb

from server.catalog.document.kinds import MAX_ROWS
from tests.catalog.documents import (
    apply,
    coupon,
    endpoint,
    export,
    feature,
    package,
    plan,
    popup,
    price,
    refusal,
    shop,
)
from tests.ledger.calls import refused
from tests.serving import Served, connected, make_key

from .conftest import DATABASE


class TestTree:
    async def test_a_tree_is_turned_over(self, empty: Served) -> None:
        tree = pb.CatalogDocument(features=[feature("a"), feature("b", "a"), feature("c", "b")])
        await apply(empty, tree)
        turned = pb.CatalogDocument(features=[feature("a", "b"), feature("b", "c"), feature("c")])
        assert len((await apply(empty, turned)).differences) == 3
        assert not (await apply(empty, turned)).differences

    async def test_one_between_that_the_document_leaves_out(self, empty: Served) -> None:
        await apply(
            empty, pb.CatalogDocument(features=[feature("a"), feature("c", "a"), feature("x", "c")])
        )
        turned = pb.CatalogDocument(features=[feature("a", "x"), feature("c")])
        assert len((await apply(empty, turned)).differences) == 2

    @pytest.mark.parametrize(
        ("features", "path"),
        [
            ([feature("a", "a")], "document.features[0].parent"),
            ([feature("z"), feature("a", "b"), feature("b", "a")], "document.features[1].parent"),
        ],
    )
    async def test_circles(
        self, empty: Served, features: list[pb.CatalogFeature], path: str
    ) -> None:
        reason, wrong = await refusal(apply(empty, pb.CatalogDocument(features=features)))
        assert (reason, list(wrong)) == ("CYCLE", [path])

    async def test_a_circle_through_one_that_is_left_out(self, empty: Served) -> None:
        await apply(empty, pb.CatalogDocument(features=[feature("a"), feature("x", "a")]))
        reason, wrong = await refusal(
            apply(empty, pb.CatalogDocument(features=[feature("a", "x")]))
        )
        assert (reason, list(wrong)) == ("CYCLE", ["document.features[0].parent"])


UNKNOWN = [
    (pb.CatalogDocument(features=[feature("a", "no")]), "document.features[0].parent"),
    (
        pb.CatalogDocument(feature_endpoints=[endpoint("a", "no")]),
        "document.feature_endpoints[0].feature",
    ),
    (
        pb.CatalogDocument(feature_endpoints=[endpoint("a", "")]),
        "document.feature_endpoints[0].feature",
    ),
    (pb.CatalogDocument(feature_popups=[popup("a", "no")]), "document.feature_popups[0].feature"),
    (
        pb.CatalogDocument(packages=[package("p", [price("no")])]),
        "document.packages[0].plans[0].plan",
    ),
    (
        pb.CatalogDocument(features=[feature("a")], packages=[package("p", features=["a", "no"])]),
        "document.packages[0].features[1].feature",
    ),
    (pb.CatalogDocument(coupons=[coupon("C1", "no")]), "document.coupons[0].packages[0]"),
]

TWICE = [
    (
        pb.CatalogDocument(features=[feature("a"), feature("a")]),
        "document.features[1].feature.value",
    ),
    (pb.CatalogDocument(plans=[plan("a"), plan("a")]), "document.plans[1].plan.name"),
    (
        pb.CatalogDocument(coupons=[coupon("ab"), coupon("AB")]),
        "document.coupons[1].coupon.code",
    ),
    (
        pb.CatalogDocument(plans=[plan("m")], packages=[package("p", [price("m"), price("m")])]),
        "document.packages[0].plans[1].plan",
    ),
    (
        pb.CatalogDocument(features=[feature("a")], packages=[package("p", features=["a", "a"])]),
        "document.packages[0].features[1].feature",
    ),
]


class TestRefused:
    @pytest.mark.parametrize(("document", "path"), UNKNOWN)
    async def test_unknown_names(
        self, empty: Served, document: pb.CatalogDocument, path: str
    ) -> None:
        reason, wrong = await refusal(apply(empty, document))
        assert (reason, list(wrong)) == ("REFERENCE_NOT_FOUND", [path])
        assert await export(empty) == pb.CatalogDocument()

    @pytest.mark.parametrize(("document", "path"), TWICE)
    async def test_names_that_come_twice(
        self, empty: Served, document: pb.CatalogDocument, path: str
    ) -> None:
        reason, wrong = await refusal(apply(empty, document))
        assert (reason, list(wrong)) == ("ALREADY_EXISTS", [path])

    async def test_every_field_that_is_wrong(self, empty: Served) -> None:
        document = shop()
        document.features[1].feature.name = ""
        document.packages[0].package.value = "no spaces"
        document.packages[1].plans[0].package_plan.price.usd_micros = -1
        document.coupons[0].coupon.discount_ppm = 2_000_000
        document.coupons[1].packages.extend(["pro", "pro"])
        reason, wrong = await refusal(apply(empty, document))
        assert reason == "FIELD_INVALID"
        assert list(wrong) == [
            "document.features[1].feature.name",
            "document.packages[0].package.value",
            "document.packages[1].plans[0].package_plan.price.usd_micros",
            "document.coupons[0].coupon.discount_ppm",
            "document.coupons[1].coupon.applicable_package_ids",
        ]

    async def test_times_that_cannot_be(self, empty: Served) -> None:
        document = pb.CatalogDocument(
            coupons=[coupon("AB", valid_until_time=Timestamp(seconds=-5))]
        )
        reason, wrong = await refusal(apply(empty, document))
        assert (reason, list(wrong)) == (
            "FIELD_INVALID",
            ["document.coupons[0].coupon.valid_until_time"],
        )

    async def test_too_many_rows(self, empty: Served) -> None:
        document = pb.CatalogDocument(
            features=[feature(f"f{i}") for i in range(MAX_ROWS - 5)],
            plans=[plan(f"p{i}") for i in range(6)],
        )
        reason, wrong = await refusal(apply(empty, document, dry_run=True))
        assert (reason, list(wrong)) == ("FIELD_INVALID", ["document"])

    async def test_all_or_nothing(self, empty: Served) -> None:
        document = shop()
        document.coupons[1].coupon.valid_from_time.FromSeconds(200)
        document.coupons[1].coupon.valid_until_time.FromSeconds(100)
        reason, wrong = await refusal(apply(empty, document))
        assert reason == "FIELD_INVALID"
        assert next(iter(wrong)).startswith("document.coupons[1].coupon.valid_")
        assert await export(empty) == pb.CatalogDocument()

    async def test_it_takes_the_scopes(self, empty: Served, mongo_url: str) -> None:
        key = await make_key(mongo_url, DATABASE, "reader", ["catalog.read"])
        async with connected(empty.target, key) as reader:
            await export(reader)
            with refused("SCOPE_MISSING"):
                await apply(reader, shop(), dry_run=True)
