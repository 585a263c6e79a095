"""The package's price list as ours: known prices, and the package's own calculation as oracle."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_CEILING, Decimal

import pytest
from genai_prices.data import providers
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
    Usage,
)
from hypothesis import given
from hypothesis import strategies as st

from server.credits.prices.importing import (
    micros_rounded_up,
    midnight_ms,
    package_seed,
    seed_models,
)
from server.credits.prices.model import (
    ModelPrices,
    ModelVersion,
    PriceBook,
    PriceTier,
    TokenPrices,
)
from server.credits.prices.seed import ModelKind
from server.kernel.money import MICROS

KINDS = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
SEED = package_seed("test")
BOOK = PriceBook(SEED.prices())
VERSIONS = {model.value: model.versions for model in SEED.models}
LISTED = {
    f"{provider.id}/{model.id}": (provider, model)
    for provider in providers
    for model in provider.models
}
MARCH = date(2026, 3, 1)
APRIL = date(2026, 4, 1)
PEAK = TimeOfDateConstraint(time(1, tzinfo=UTC), time(4, tzinfo=UTC))


def imported(prices: ModelPrice | list[ConditionalPrice]) -> tuple[ModelVersion, ...]:
    model = ModelInfo(id="m", match=ClauseEquals("m"), prices=prices)
    seeded = seed_models([Provider(id="p", name="P", api_pattern="", models=[model])])
    return seeded[0].versions if seeded else ()


def dollars(**prices: str) -> ModelPrice:
    return ModelPrice(**{kind: Decimal(price) for kind, price in prices.items()})


class TestKnownPrices:
    def test_gpt_4o_mini(self) -> None:
        assert VERSIONS["openai/gpt-4o-mini"] == (
            ModelVersion(0, ModelPrices(TokenPrices(150_000, 600_000, 75_000))),
        )

    def test_tiered_gemini(self) -> None:
        assert VERSIONS["google/gemini-2.5-pro"] == (
            ModelVersion(
                0,
                ModelPrices(
                    TokenPrices(1_250_000, 10_000_000, 125_000),
                    (PriceTier(200_000, TokenPrices(2_500_000, 15_000_000, 250_000)),),
                ),
            ),
        )

    def test_dated_o3(self) -> None:
        assert VERSIONS["openai/o3"] == (
            ModelVersion(0, ModelPrices(TokenPrices(10_000_000, 40_000_000, 500_000))),
            ModelVersion(
                midnight_ms(date(2025, 6, 10)),
                ModelPrices(TokenPrices(2_000_000, 8_000_000, 500_000)),
            ),
        )

    def test_embeddings_are_no_language_models(self) -> None:
        kinds = {model.value: model.kind for model in SEED.models}
        assert kinds["openai/text-embedding-3-small"] is ModelKind.OTHER
        assert kinds["openai/gpt-4o-mini"] is ModelKind.LLM


class TestList:
    def test_has_every_model_with_an_input_or_output_price(self) -> None:
        priced = {
            value
            for value, (_, model) in LISTED.items()
            for prices in each_price(model)
            if prices.input_mtok is not None or prices.output_mtok is not None
        }
        assert len(priced) > 1_000
        assert set(VERSIONS) == priced

    def test_is_in_the_same_order_every_time(self) -> None:
        values = [model.value for model in SEED.models]
        assert values == sorted(set(values))
        assert seed_models(list(reversed(providers))) == SEED.models

    def test_says_where_it_is_from(self) -> None:
        assert SEED.why.startswith("test: genai-prices ")


class TestVersions:
    def test_first_applies_since_the_epoch_the_others_from_their_day(self) -> None:
        assert imported(
            [
                ConditionalPrice(prices=dollars(input_mtok="1")),
                ConditionalPrice(StartDateConstraint(MARCH), prices=dollars(input_mtok="2")),
            ]
        ) == (
            ModelVersion(0, ModelPrices(TokenPrices(MICROS, 0))),
            ModelVersion(1_772_323_200_000, ModelPrices(TokenPrices(2 * MICROS, 0))),
        )

    def test_a_later_entry_wins_over_one_that_starts_later(self) -> None:
        versions = imported(
            [
                ConditionalPrice(prices=dollars(input_mtok="1")),
                ConditionalPrice(StartDateConstraint(APRIL), prices=dollars(input_mtok="3")),
                ConditionalPrice(StartDateConstraint(MARCH), prices=dollars(input_mtok="2")),
            ]
        )
        assert [version.effective_time_ms for version in versions] == [0, midnight_ms(MARCH)]

    def test_times_of_day_are_left_out(self) -> None:
        assert imported(
            [
                ConditionalPrice(prices=dollars(input_mtok="1")),
                ConditionalPrice(PEAK, prices=dollars(input_mtok="2")),
            ]
        ) == (ModelVersion(0, ModelPrices(TokenPrices(MICROS, 0))),)

    def test_a_price_that_goes_ends(self) -> None:
        versions = imported(
            [
                ConditionalPrice(prices=dollars(input_mtok="1")),
                ConditionalPrice(StartDateConstraint(MARCH), prices=dollars(requests_kcount="2")),
            ]
        )
        assert versions[1] == ModelVersion(midnight_ms(MARCH), None)

    def test_a_price_that_comes_starts_then(self) -> None:
        versions = imported(
            [
                ConditionalPrice(prices=dollars(requests_kcount="2")),
                ConditionalPrice(StartDateConstraint(MARCH), prices=dollars(output_mtok="1")),
            ]
        )
        assert versions == (ModelVersion(midnight_ms(MARCH), ModelPrices(TokenPrices(0, MICROS))),)

    def test_tiers_with_bounds_of_their_own_are_merged(self) -> None:
        def tiered(base: str, start: int, price: str) -> TieredPrices:
            return TieredPrices(base=Decimal(base), tiers=[Tier(start=start, price=Decimal(price))])

        assert imported(
            ModelPrice(input_mtok=tiered("1", 100, "2"), output_mtok=tiered("3", 200, "4"))
        ) == (
            ModelVersion(
                0,
                ModelPrices(
                    TokenPrices(1 * MICROS, 3 * MICROS),
                    (
                        PriceTier(100, TokenPrices(2 * MICROS, 3 * MICROS)),
                        PriceTier(200, TokenPrices(2 * MICROS, 4 * MICROS)),
                    ),
                ),
            ),
        )

    @pytest.mark.parametrize(
        ("usd", "micros"),
        [("0.15", 150_000), ("0.003625", 3_625), ("0.0000001", 1), ("0.0833333333333333", 83_334)],
    )
    def test_fractions_of_a_micro_dollar_are_rounded_up(self, usd: str, micros: int) -> None:
        assert micros_rounded_up(Decimal(usd)) == micros


class TestAgainstThePackage:
    """A charge's cost is the package's own, for prices that micro-USD hold exactly."""

    @given(st.data(), st.tuples(*[st.integers(0, 400_000)] * 4))
    def test_any_usage_of_any_model(
        self, data: st.DataObject, used: tuple[int, int, int, int]
    ) -> None:
        value = data.draw(st.sampled_from(COMPARABLE))
        time_ms = data.draw(st.sampled_from(moments(value)))
        assert our_cost(value, time_ms, used) == their_cost(value, time_ms, used)

    def test_every_model_around_its_tiers_and_dates(self) -> None:
        tried = 0
        for value in COMPARABLE:
            for time_ms in moments(value):
                for total in totals(value):
                    used = (total - total // 2, 1_001, total // 3, total // 2 - total // 3)
                    assert sum(used) == total + 1_001
                    ours = our_cost(value, time_ms, used)
                    assert ours == their_cost(value, time_ms, used), (value, time_ms, used)
                    tried += 1
        assert tried > 2 * len(COMPARABLE) > 3_000


def our_cost(value: str, time_ms: int, used: tuple[int, int, int, int]) -> int:
    return BOOK.charge(value, time_ms, *used).cost_price_micros


def their_cost(value: str, time_ms: int, used: tuple[int, int, int, int]) -> int:
    provider, model = LISTED[value]
    usage = Usage(
        input_tokens=used[0] + used[2] + used[3],
        output_tokens=used[1],
        cache_read_tokens=used[2],
        cache_write_tokens=used[3],
    )
    moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=time_ms)
    usd = model.calc_price(usage, provider, genai_request_timestamp=moment).total_price
    return int((usd * MICROS).to_integral_value(ROUND_CEILING))


def moments(value: str) -> list[int]:
    """The first moment of each version and the last before it."""
    starts = [version.effective_time_ms for version in VERSIONS[value]]
    return [0, *(time_ms for start in starts[1:] for time_ms in (start - 1, start))]


def totals(value: str) -> list[int]:
    """Total input at, and one above, the bound of every tier."""
    priced = [version.prices for version in VERSIONS[value] if version.prices]
    bounds = {tier.above_input_tokens for prices in priced for tier in prices.tiers}
    return [0, 1_000, *(total for bound in sorted(bounds) for total in (bound, bound + 1))]


def each_price(model: ModelInfo) -> list[ModelPrice]:
    if isinstance(model.prices, ModelPrice):
        return [model.prices]
    return [condition.prices for condition in model.prices]


def is_comparable(model: ModelInfo) -> bool:
    """Priced by nothing but what a charge knows, in whole micro-USD, at all times of day."""
    by_day = not isinstance(model.prices, ModelPrice) and any(
        isinstance(condition.constraint, TimeOfDateConstraint) for condition in model.prices
    )
    return not by_day and all(is_exact(prices) for prices in each_price(model))


def is_exact(prices: ModelPrice) -> bool:
    by_kind = {kind: price for kind, price in prices.__dict__.items() if price is not None}
    whole = all(amount * MICROS % 1 == 0 for price in by_kind.values() for amount in amounts(price))
    # Usage that has none of what they are for is not priced by these.
    return whole and set(by_kind) <= {*KINDS, "web_searches_kcount", "cache_write_1h_mtok"}


def amounts(price: Decimal | TieredPrices) -> list[Decimal]:
    if isinstance(price, Decimal):
        return [price]
    return [price.base, *(tier.price for tier in price.tiers)]


COMPARABLE = [value for value in VERSIONS if is_comparable(LISTED[value][1])]
