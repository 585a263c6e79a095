"""Any catalog: exported and applied it is the same, here and elsewhere, as document and as file."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zaaz.catalog.v1 import catalog_document_pb2 as pb
from zaaz.catalog.v1.coupon_pb2 import (
    DISCOUNT_TYPE_CREDITS,
    DISCOUNT_TYPE_FIXED,
    DISCOUNT_TYPE_PERCENTAGE,
)
from zaaz.catalog.v1.feature_pb2 import WordLimit
from zaaz.catalog.v1.package_plan_pb2 import Price
from zaaz_client.catalog_files import read_catalog, write_catalog

from tests.catalog.documents import (
    apply,
    coupon,
    endpoint,
    export,
    feature,
    forget_catalog,
    package,
    plan,
    popup,
    price,
)
from tests.conftest import MongoClient
from tests.serving import Served

from .conftest import DATABASE

EXAMPLES = 15
NAMES = ("a", "b", "c", "d")
TEXT = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8)
HTML = st.sampled_from(["", "<p>Hi</p>", "<b onclick='x()'>1 < 2", "<script>no</script>yes", "&"])
AMOUNT = st.integers(0, 10**12)
SEQUENCE = st.integers(-3, 3)
SOME = st.lists(st.sampled_from(NAMES), max_size=4, unique=True)
PRICES = st.builds(Price, usd_micros=AMOUNT) | st.builds(
    Price, usd_micros=AMOUNT, bdt_micros=AMOUNT
)


@st.composite
def catalogs(draw: st.DrawFn) -> pb.CatalogDocument:
    """Valid ones of few names, so that two of them have much in common."""
    active, text = st.booleans(), TEXT
    features, plans, packages = draw(SOME), draw(SOME), draw(SOME)
    document = pb.CatalogDocument()
    for i, name in enumerate(features):
        limits = draw(st.none() | st.builds(WordLimit, free=AMOUNT, paid=AMOUNT))
        parent = draw(st.sampled_from(["", *features[:i]]))
        fields = {"sequence": draw(SEQUENCE), "description": draw(text), "max_word": limits}
        document.features.append(feature(name, parent, is_active=draw(active), **fields))
    for name in draw(SOME) if features else ():
        of = st.sampled_from(features)
        document.feature_endpoints.append(
            endpoint(name, draw(of), credits_micros=draw(AMOUNT), is_active=draw(active))
        )
        document.feature_popups.append(popup(name, draw(of), content=draw(HTML)))
    for name in plans:
        document.plans.append(plan(name, draw(st.integers(1, 400)), sequence=draw(SEQUENCE)))
    for name in packages:
        document.packages.append(draw(_packages(name, plans, features)))
    one_is_initial = draw(st.booleans())
    if packages and one_is_initial:
        draw(st.sampled_from(list(document.packages))).package.is_initial = True
    for name in draw(SOME):
        document.coupons.append(draw(_coupons(f"{name}1", packages)))
    return document


@st.composite
def _packages(
    draw: st.DrawFn, name: str, plans: list[str], features: list[str]
) -> pb.CatalogPackage:
    prices = [
        price(one, draw(st.integers(0, 99)), credits_micros=draw(AMOUNT))
        for one in plans
        if draw(st.booleans())
    ]
    one_is_initial = draw(st.booleans())
    if prices and one_is_initial:
        draw(st.sampled_from(prices)).package_plan.is_initial = True
    return package(
        name,
        prices,
        [one for one in features if draw(st.booleans())],
        content=draw(HTML),
        points=[one for one in draw(st.lists(TEXT, max_size=2)) if one],
        sequence=draw(SEQUENCE),
    )


@st.composite
def _coupons(draw: st.DrawFn, code: str, packages: list[str]) -> pb.CatalogCoupon:
    kinds: list[dict[str, Any]] = [
        {"discount_type": DISCOUNT_TYPE_PERCENTAGE, "discount_ppm": draw(st.integers(1, 10**6))},
        {
            "discount_type": DISCOUNT_TYPE_FIXED,
            "discount_ppm": 0,
            "fixed_amount": Price(usd_micros=draw(st.integers(1, 10**9))),
        },
        {
            "discount_type": DISCOUNT_TYPE_CREDITS,
            "discount_ppm": 0,
            "credits_micros": draw(st.integers(1, 10**9)),
        },
    ]
    fields = draw(st.sampled_from(kinds))
    covered = () if fields["discount_type"] == DISCOUNT_TYPE_CREDITS else packages
    return coupon(code, *(one for one in covered if draw(st.booleans())), **fields)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.tuples(catalogs(), catalogs()))
async def test_any_catalog(
    empty: Served, mongo_client: MongoClient, pair: tuple[pb.CatalogDocument, pb.CatalogDocument]
) -> None:
    first, second = pair
    await forget_catalog(mongo_client[DATABASE])
    await apply(empty, first)
    # Into another one, by whatever steps that takes.
    planned = await apply(empty, second, prune=True, dry_run=True)
    assert (await apply(empty, second, prune=True)).differences == planned.differences
    assert not (await apply(empty, second, prune=True)).differences
    made = await export(empty)
    file = read_catalog(write_catalog(made), "x.yaml").document
    for same in (made, file):
        assert not (await apply(empty, same, prune=True)).differences
    # And elsewhere, where there was nothing: here once it is forgotten.
    await forget_catalog(mongo_client[DATABASE])
    await apply(empty, file)
    assert await export(empty) == made
