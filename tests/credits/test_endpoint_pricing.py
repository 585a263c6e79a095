"""What a use costs by its model, its endpoint, or both."""

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from server.catalog.endpoints import EndpointBook, EndpointVersion
from server.credits.prices.model import (
    CreditPriceVersion,
    ModelPrices,
    ModelVersion,
    PriceBook,
    Prices,
    ProfitVersion,
    TokenPrices,
)
from server.credits.pricing import Pricing
from server.kernel.errors import DomainError, Reason
from server.kernel.money import MAX_MICROS
from server.ledger.model import Charge

MODEL = "p/model"
BOOK = PriceBook(
    Prices(
        models={MODEL: (ModelVersion(0, ModelPrices(TokenPrices(150_000, 600_000))),)},
        credit_prices=(CreditPriceVersion(0, 1_000_000), CreditPriceVersion(50, 2_000_000)),
        profits=(ProfitVersion(0, 200_000),),
        model_profits={},
    )
)


def pricing(credits_micros: int | None, since_ms: int = 0) -> Pricing:
    version = EndpointVersion(ObjectId(), ObjectId(), "chat", since_ms, credits_micros, False)
    endpoints = EndpointBook({}, (), [version])
    return Pricing(lambda: BOOK, lambda: endpoints)


class TestCharge:
    def test_a_model_alone_costs_what_the_book_says(self) -> None:
        charge = pricing(5).charge("", MODEL, 1_000, 500, 3, 4, 10)
        assert charge == BOOK.charge(MODEL, 10, 1_000, 500, 3, 4)
        assert charge.endpoint_credits_micros == 0

    def test_an_endpoint_alone_is_all_profit(self) -> None:
        charge = pricing(70).charge("chat", "", 1_000, 500, 0, 0, 60)
        assert charge == Charge(70, 0, 0, 0, 70, 0, 2_000_000, 200_000, 70)

    def test_an_endpoint_alone_needs_no_prices(self) -> None:
        nothing = PriceBook(Prices({}, (), (), {}))
        endpoints = EndpointBook(
            {}, (), [EndpointVersion(ObjectId(), ObjectId(), "chat", 0, 70, False)]
        )
        charge = Pricing(lambda: nothing, lambda: endpoints).charge("chat", "", 0, 0, 0, 0, 60)
        assert charge == Charge(70, 0, 0, 0, 70, 0, 0, 0, 70)

    @given(
        st.integers(0, 10**15),
        st.integers(0, 10**9),
        st.integers(0, 10**9),
        st.integers(0, 10**9),
        st.integers(0, 10**9),
    )
    def test_both_add_up(
        self, fixed: int, tokens_in: int, tokens_out: int, read: int, write: int
    ) -> None:
        alone = BOOK.charge(MODEL, 10, tokens_in, tokens_out, read, write)
        charge = pricing(fixed).charge("chat", MODEL, tokens_in, tokens_out, read, write, 10)
        total = charge.credits_micros
        assert total == alone.credits_micros + fixed
        assert total == charge.cost_credits_micros + charge.profit_credits_micros
        assert total == (
            charge.input_credits_micros
            + charge.output_credits_micros
            + charge.endpoint_credits_micros
        )
        assert charge.cost_price_micros == alone.cost_price_micros
        assert (charge.credit_price_micros, charge.profit_ppm) == (1_000_000, 200_000)

    @pytest.mark.parametrize(
        ("endpoint", "model", "credits_micros", "since_ms", "reason"),
        [
            ("chit", MODEL, 5, 0, Reason.FEATURE_ENDPOINT_NOT_FOUND),
            ("chat", MODEL, 5, 11, Reason.FEATURE_ENDPOINT_NOT_FOUND),
            ("chat", MODEL, None, 0, Reason.FEATURE_ENDPOINT_NOT_FOUND),
            ("chat", "p/unknown", 5, 0, Reason.PRICE_NOT_FOUND),
            ("chat", MODEL, MAX_MICROS, 0, Reason.AMOUNT_OUT_OF_RANGE),
        ],
    )
    def test_refusals(
        self,
        endpoint: str,
        model: str,
        credits_micros: int | None,
        since_ms: int,
        reason: Reason,
    ) -> None:
        with pytest.raises(DomainError) as refusal:
            pricing(credits_micros, since_ms).charge(endpoint, model, 1, 1, 0, 0, 10)
        assert refusal.value.reason is reason
