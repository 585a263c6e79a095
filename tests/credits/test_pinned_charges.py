"""What was pinned prices as the book did when it was pinned: the rules of rounding stand once."""

from hypothesis import given
from hypothesis import strategies as st

from server.credits.prices.model import (
    CreditPriceVersion,
    ModelPrices,
    ModelVersion,
    PriceBook,
    Prices,
    PriceTier,
    ProfitVersion,
    TokenPrices,
)
from server.credits.pricing import Pricing, charge_at
from server.ledger.model import Tokens

rates = st.builds(
    TokenPrices,
    st.integers(0, 10**8),
    st.integers(0, 10**8),
    st.none() | st.integers(0, 10**8),
    st.none() | st.integers(0, 10**8),
)
tokens = st.builds(Tokens, *[st.integers(0, 10**6)] * 4)


class OneEndpoint:
    """An endpoint of so many credits at all times."""

    def __init__(self, credits_micros: int) -> None:
        self._credits_micros = credits_micros

    def find(self, value: str) -> None:
        return None

    def credits_at(self, value: str, time_ms: int) -> int:
        return self._credits_micros

    def id_at(self, value: str, time_ms: int) -> None:
        return None

    def version_at(self, value: str, time_ms: int) -> None:
        return None


@given(
    base=rates,
    above=st.none() | rates,
    bound=st.integers(0, 10**6),
    credit_price=st.integers(1, 10**9),
    profit_ppm=st.integers(0, 10**6),
    endpoint=st.integers(0, 10**9),
    used=tokens,
    of=st.sampled_from([("", "m"), ("e", ""), ("e", "m")]),
)
def test_pinned_prices_price_as_the_book_does(
    base: TokenPrices,
    above: TokenPrices | None,
    bound: int,
    credit_price: int,
    profit_ppm: int,
    endpoint: int,
    used: Tokens,
    of: tuple[str, str],
) -> None:
    tiers = () if above is None else (PriceTier(bound, above),)
    book = PriceBook(
        Prices(
            models={"m": (ModelVersion(0, ModelPrices(base, tiers)),)},
            credit_prices=(CreditPriceVersion(0, credit_price),),
            profits=(ProfitVersion(0, profit_ppm),),
            model_profits={},
        )
    )
    pricing = Pricing(lambda: book, lambda: OneEndpoint(endpoint))
    assert charge_at(pricing.pin(*of, 7), used) == pricing.charge(*of, *used, 7)
