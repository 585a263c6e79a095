"""Packages made through the contract, as buyers see them: each change shows at once."""

from tests.catalog.calls import change_feature, new_feature
from tests.catalog.package_calls import change, include, new_package, new_plan, new_price, package
from tests.offers.shop import USD, Shop
from tests.serving import Served

ONE_USD = {"usd_micros": 1_000_000}


async def test_each_change_shows_at_once(shop: Shop) -> None:
    served = shop.served
    made = await new_package(served, points=["Fast"], badge="New")
    assert not await shop.list()
    yearly = await new_plan(served, duration_days=365, sequence=2)
    monthly = await new_plan(served, sequence=1)
    for plan in (yearly, monthly):
        await new_price(served, made.id, plan.id, price=ONE_USD)
    second, first = await new_feature(served), await new_feature(served)
    for sequence, feature in ((2, second), (1, first)):
        await include(served, made.id, feature.id, sequence=sequence)

    (offer,) = await shop.list()
    assert (offer.name, offer.badge, list(offer.points)) == (made.name, "New", ["Fast"])
    assert offer.package_history_id == (await package(served, made.id)).history_id
    assert [feature.id for feature in offer.features] == [first.id, second.id]
    assert [(plan.plan_id, plan.duration_days) for plan in offer.plans] == [
        (monthly.id, 30),
        (yearly.id, 365),
    ]
    await _switch(shop, served, first.id, monthly.id, made.id)


async def _switch(
    shop: Shop, served: Served, feature_id: str, plan_id: str, package_id: str
) -> None:
    """Off: each is left out, the package too."""
    await change_feature(served, feature_id, is_active=False)
    (offer,) = await shop.list()
    assert feature_id not in [feature.id for feature in offer.features]
    assert len(offer.features) == 1
    await change(served, "Plan", plan_id, is_active=False)
    (offer,) = await shop.list()
    assert [plan.duration_days for plan in offer.plans] == [365]
    await change(served, "Package", package_id, is_active=False)
    assert not await shop.list(USD)


async def test_a_quote_is_of_the_present_price(shop: Shop) -> None:
    served = shop.served
    made, plan = await new_package(served), await new_plan(served)
    row = await new_price(served, made.id, plan.id, price=ONE_USD)
    sold = {"package_id": made.id, "plan_id": plan.id}
    first = await shop.quote_of(**sold)
    assert first.package_history_id == (await package(served, made.id)).history_id
    await change(served, "PackagePlan", row.id, price={"usd_micros": 2_000_000}, credits_micros=9)
    second = await shop.quote_of(**sold)
    assert (first.amount_micros, second.amount_micros) == (1_000_000, 2_000_000)
    assert (second.credits_micros, second.package_plan_id) == (9, row.id)
    assert second.package_history_id != first.package_history_id
