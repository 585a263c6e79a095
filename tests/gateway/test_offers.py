"""Offers and coupons at their REST paths."""

import httpx2

from tests.catalog.package_calls import new_package, new_plan, new_price
from tests.offers.shop import new_coupon
from tests.serving import Served, new_key

Client = httpx2.AsyncClient


async def test_offers_of_a_currency(rest: Client, served: Served) -> None:
    package, plan = await new_package(served), await new_plan(served)
    await new_price(served, package.id, plan.id, price={"usd_micros": 9_990_000})
    answer = await rest.get("/api/offers?currency=CURRENCY_USD")
    assert answer.status_code == 200, answer.text
    (offer,) = (one for one in answer.json()["offers"] if one["package_id"] == package.id)
    assert offer["name"] == package.name
    assert offer["plans"][0]["price_micros"] == "9990000"

    answer = await rest.get("/api/offers")
    assert answer.status_code == 400
    assert answer.json()["reason"] == "FIELD_INVALID"


async def test_a_quote(rest: Client, served: Served) -> None:
    package, plan = await new_package(served), await new_plan(served)
    await new_price(served, package.id, plan.id, price={"bdt_micros": 7})
    asked = {"package_id": package.id, "plan_id": plan.id, "coupon_code": "none"}
    answer = await rest.post("/api/offers/quote", json={**asked, "currency": "CURRENCY_BDT"})
    assert answer.status_code == 200, answer.text
    quoted = answer.json()
    assert quoted["amount_micros"] == "7"
    (refusal,) = quoted["refusals"]
    assert refusal["reason"].endswith("COUPON_NOT_FOUND")
    assert refusal["metadata"] == {"code": "NONE"}


async def test_a_coupon_redeemed(rest: Client, served: Served) -> None:
    user_id = await served.new_wallet()
    coupon = await new_coupon(served, credits_micros=3, user_usage_limit=1)
    body = {"request_id": new_key(), "user_id": user_id, "code": coupon.code}
    answer = await rest.post("/api/coupons/redeem", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["wallet"]["credits_micros"] == "3"
    assert (await rest.post("/api/coupons/redeem", json=body)).json() == answer.json()

    body["request_id"] = new_key()
    answer = await rest.post("/api/coupons/redeem", json=body)
    assert answer.status_code == 409
    problem = answer.json()
    assert problem["reason"] == "COUPON_USED_BY_USER"
    assert problem["metadata"] == {"code": coupon.code, "limit": "1"}
