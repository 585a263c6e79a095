"""The arithmetic of a charge, proven against exact fractions, and what is in force when."""

from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import assume, given
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
from server.kernel.errors import DomainError, Reason
from server.kernel.money import MAX_MICROS
from server.ledger.model import Charge

MODEL = "openai/gpt-4o-mini"
DOLLAR = 1_000_000

tokens = st.one_of(st.integers(0, 3), st.integers(0, 2_000_000), st.integers(0, MAX_MICROS))
rates = st.one_of(st.integers(0, 3), st.integers(0, 200 * DOLLAR), st.integers(0, MAX_MICROS))
optional_rates = st.none() | rates
credit_prices = st.one_of(
    st.integers(1, 7), st.integers(1, 10 * DOLLAR), st.integers(1, MAX_MICROS)
)
margins = st.one_of(st.integers(0, 1_000_000), st.integers(0, MAX_MICROS))
token_prices = st.builds(TokenPrices, rates, rates, optional_rates, optional_rates)
usages = st.tuples(tokens, tokens, tokens, tokens)


def book(
    *versions: ModelVersion,
    credit_price: int = DOLLAR,
    profit_ppm: int = 200_000,
    model_profits: tuple[ProfitVersion, ...] = (),
) -> PriceBook:
    return PriceBook(
        Prices(
            models={MODEL: versions},
            credit_prices=(CreditPriceVersion(0, credit_price),),
            profits=(ProfitVersion(0, profit_ppm),),
            model_profits={MODEL: model_profits} if model_profits else {},
        )
    )


def always(prices: TokenPrices, *tiers: PriceTier) -> ModelVersion:
    return ModelVersion(0, ModelPrices(prices, tiers))


def reason(prices: PriceBook, model: str, time_ms: int, used: tuple[int, int, int, int]) -> Reason:
    with pytest.raises(DomainError) as caught:
        prices.charge(model, time_ms, *used)
    return caught.value.reason


class TestArithmetic:
    @given(token_prices, credit_prices, margins, usages)
    def test_is_the_exact_rational_rounded_once(
        self,
        prices: TokenPrices,
        credit_price: int,
        profit_ppm: int,
        used: tuple[int, int, int, int],
    ) -> None:
        priced = book(always(prices), credit_price=credit_price, profit_ppm=profit_ppm)
        read = prices.input if prices.cache_read is None else prices.cache_read
        write = prices.input if prices.cache_write is None else prices.cache_write
        input_usd = Fraction(used[0] * prices.input + used[2] * read + used[3] * write, 10**12)
        usd = input_usd + Fraction(used[1] * prices.output, 10**12)
        exact = usd / Fraction(credit_price, 10**6) * 1000
        total = ceil(exact * (1 + Fraction(profit_ppm, 10**6)) * 10**6)
        cost_price = ceil(usd * 10**6)
        if max(total, cost_price) > MAX_MICROS:
            assert reason(priced, MODEL, 0, used) == Reason.AMOUNT_OUT_OF_RANGE
            return
        cost = floor(exact * 10**6)
        share = floor(total * input_usd / usd) if usd else 0
        assert priced.charge(MODEL, 0, *used) == Charge(
            total, share, total - share, cost, total - cost, cost_price, credit_price, profit_ppm
        )

    @given(token_prices, credit_prices, margins, usages)
    def test_parts_add_up_and_none_is_negative(
        self,
        prices: TokenPrices,
        credit_price: int,
        profit_ppm: int,
        used: tuple[int, int, int, int],
    ) -> None:
        charge = charge_or_discard(
            book(always(prices), credit_price=credit_price, profit_ppm=profit_ppm), used
        )
        assert charge.input_credits_micros + charge.output_credits_micros == charge.credits_micros
        assert charge.cost_credits_micros + charge.profit_credits_micros == charge.credits_micros
        assert min(charge) >= 0

    @given(token_prices, credit_prices, margins, usages, usages)
    def test_more_tokens_never_cost_less(
        self,
        prices: TokenPrices,
        credit_price: int,
        profit_ppm: int,
        used: tuple[int, int, int, int],
        more: tuple[int, int, int, int],
    ) -> None:
        priced = book(always(prices), credit_price=credit_price, profit_ppm=profit_ppm)
        most = tuple(a + b for a, b in zip(used, more, strict=True))
        larger = charge_or_discard(priced, most)  # type: ignore[arg-type]
        smaller = priced.charge(MODEL, 0, *used)
        assert smaller.credits_micros <= larger.credits_micros
        assert smaller.cost_credits_micros <= larger.cost_credits_micros
        assert smaller.cost_price_micros <= larger.cost_price_micros

    def test_known_example(self) -> None:
        # 4,808 x $0.15 + 10 x $0.60 per million tokens at $1 per 1,000 credits plus 20 %.
        charge = book(always(TokenPrices(150_000, 600_000))).charge(MODEL, 0, 4_808, 10, 0, 0)
        assert charge == Charge(
            credits_micros=872_640,
            input_credits_micros=865_440,
            output_credits_micros=7_200,
            cost_credits_micros=727_200,
            profit_credits_micros=145_440,
            cost_price_micros=728,
            credit_price_micros=DOLLAR,
            profit_ppm=200_000,
        )

    def test_smallest_cost_is_one_micro_credit(self) -> None:
        charge = book(always(TokenPrices(1, 0)), credit_price=1_000 * DOLLAR).charge(
            MODEL, 0, 1, 0, 0, 0
        )
        assert (charge.credits_micros, charge.cost_credits_micros) == (1, 0)
        assert (charge.profit_credits_micros, charge.cost_price_micros) == (1, 1)

    def test_no_tokens_cost_nothing(self) -> None:
        charge = book(always(TokenPrices(150_000, 600_000))).charge(MODEL, 0, 0, 0, 0, 0)
        assert charge == Charge(0, 0, 0, 0, 0, 0, DOLLAR, 200_000)

    def test_largest_amount_fits_and_the_next_does_not(self) -> None:
        # One micro-credit a token.
        priced = book(always(TokenPrices(1_000, 0)), profit_ppm=0)
        assert priced.charge(MODEL, 0, MAX_MICROS, 0, 0, 0).credits_micros == MAX_MICROS
        assert reason(priced, MODEL, 0, (MAX_MICROS, 0, 1, 0)) == Reason.AMOUNT_OUT_OF_RANGE

    def test_cost_in_money_has_the_same_bound(self) -> None:
        priced = book(always(TokenPrices(2 * DOLLAR, 0)), credit_price=MAX_MICROS, profit_ppm=0)
        with pytest.raises(DomainError) as caught:
            priced.charge(MODEL, 0, MAX_MICROS, 0, 0, 0)
        assert caught.value.reason == Reason.AMOUNT_OUT_OF_RANGE
        assert caught.value.metadata == {"field": "cost_price_micros"}


class TestVersions:
    CHEAP = ModelPrices(TokenPrices(1_000, 0))
    DEAR = ModelPrices(TokenPrices(2_000, 0))

    def test_applies_from_its_effective_time_on(self) -> None:
        priced = book(ModelVersion(100, self.CHEAP), ModelVersion(200, self.DEAR), profit_ppm=0)
        assert [self.one_token(priced, time) for time in (100, 199, 200, 10**13)] == [1, 1, 2, 2]

    def test_before_the_first_there_is_no_price(self) -> None:
        priced = book(ModelVersion(100, self.CHEAP))
        with pytest.raises(DomainError) as caught:
            priced.charge(MODEL, 99, 1, 0, 0, 0)
        assert caught.value.reason == Reason.PRICE_NOT_FOUND
        assert caught.value.metadata == {
            "ai_model": MODEL,
            "occurred_time": "1970-01-01T00:00:00.099Z",
        }

    def test_unknown_model(self) -> None:
        priced = book(always(TokenPrices(1, 1)))
        assert reason(priced, "openai/gpt-5o", 0, (1, 0, 0, 0)) == Reason.PRICE_NOT_FOUND

    def test_last_of_the_same_time_counts(self) -> None:
        priced = book(ModelVersion(100, self.CHEAP), ModelVersion(100, self.DEAR), profit_ppm=0)
        assert self.one_token(priced, 100) == 2

    def test_withdrawn_model_has_no_price_from_then_on(self) -> None:
        priced = book(ModelVersion(100, self.CHEAP), ModelVersion(200, None), profit_ppm=0)
        assert self.one_token(priced, 199) == 1
        assert reason(priced, MODEL, 200, (1, 0, 0, 0)) == Reason.PRICE_NOT_FOUND

    def test_credit_price_by_time(self) -> None:
        priced = PriceBook(
            Prices(
                models={MODEL: (ModelVersion(0, self.CHEAP),)},
                credit_prices=(CreditPriceVersion(10, DOLLAR), CreditPriceVersion(20, DOLLAR // 2)),
                profits=(ProfitVersion(0, 0),),
                model_profits={},
            )
        )
        assert [self.one_token(priced, time) for time in (10, 19, 20)] == [1, 1, 2]
        assert reason(priced, MODEL, 9, (1, 0, 0, 0)) == Reason.PRICE_NOT_FOUND

    def test_without_a_margin_nothing_is_billed_at_cost(self) -> None:
        priced = PriceBook(
            Prices(
                models={MODEL: (ModelVersion(0, self.CHEAP),)},
                credit_prices=(CreditPriceVersion(0, DOLLAR),),
                profits=(ProfitVersion(10, 0),),
                model_profits={},
            )
        )
        assert reason(priced, MODEL, 9, (1, 0, 0, 0)) == Reason.PRICE_NOT_FOUND

    def test_a_models_margin_overrides_the_global_one_while_it_lasts(self) -> None:
        priced = book(
            always(TokenPrices(1_000, 0)),
            profit_ppm=200_000,
            model_profits=(ProfitVersion(10, 0), ProfitVersion(20, None)),
        )
        margins = [priced.charge(MODEL, time, 1, 0, 0, 0).profit_ppm for time in (9, 10, 19, 20)]
        assert margins == [200_000, 0, 0, 200_000]

    @pytest.mark.parametrize(
        "versions",
        [
            (ModelVersion(2, None), ModelVersion(1, None)),
            (always(TokenPrices(-1, 0)),),
            (always(TokenPrices(0, MAX_MICROS + 1)),),
            (
                always(
                    TokenPrices(0, 0),
                    PriceTier(9, TokenPrices(0, 0)),
                    PriceTier(9, TokenPrices(0, 0)),
                ),
            ),
        ],
    )
    def test_refuses_what_makes_no_price(self, versions: tuple[ModelVersion, ...]) -> None:
        with pytest.raises(ValueError, match=r"must be in the order|is not between"):
            book(*versions)

    def test_refuses_credits_for_free(self) -> None:
        with pytest.raises(ValueError, match="is not between 1"):
            book(credit_price=0)

    @staticmethod
    def one_token(priced: PriceBook, time_ms: int) -> int:
        return priced.charge(MODEL, time_ms, 1, 0, 0, 0).credits_micros


class TestTiers:
    PRICED = book(
        always(
            TokenPrices(1_000, 10_000, 100),
            PriceTier(200, TokenPrices(2_000, 20_000, 300)),
            PriceTier(400, TokenPrices(4_000, 40_000, 700, 5_000)),
        ),
        profit_ppm=0,
    )

    @pytest.mark.parametrize(
        ("used", "total"),
        [
            ((200, 1, 0, 0), 200 + 10),
            # One more, and all of them pay the tier, output too.
            ((201, 1, 0, 0), 201 * 2 + 20),
            ((400, 0, 0, 0), 400 * 2),
            ((401, 0, 0, 0), 401 * 4),
            # Output does not count towards the bound, both cache kinds do.
            ((0, 1_000, 0, 0), 10_000),
            ((100, 0, 100, 1), 200 + 30 + 2),
            ((1, 0, 200, 200), 4 + 140 + 1_000),
        ],
    )
    def test_all_tokens_pay_the_highest_tier_exceeded(
        self, used: tuple[int, int, int, int], total: int
    ) -> None:
        assert self.PRICED.charge(MODEL, 0, *used).credits_micros == total


def charge_or_discard(priced: PriceBook, used: tuple[int, int, int, int]) -> Charge:
    try:
        return priced.charge(MODEL, 0, *used)
    except DomainError:
        assume(condition=False)
        raise
