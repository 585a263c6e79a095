"""What a use of a model costs: an immutable book of everything in force, by time.

Units: prices in micro-USD per million tokens, the credit price in micro-USD per
1,000 credits, margins in parts per million, amounts in micro-credits. Ints only.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

from bson import ObjectId

from server.kernel.clock import iso
from server.kernel.errors import DomainError, Reason
from server.kernel.money import MAX_MICROS, MICROS, in_range
from server.ledger.model import Charge, PinnedPrices

CREDITS_PER_CREDIT_PRICE = 1_000
"""The credit price is that of so many credits."""

EPOCH_MS = 0
"""Effective time of what has always been in force."""


class TokenPrices(NamedTuple):
    """Micro-USD per million tokens of each kind. A cache price of None is the input price."""

    input: int
    output: int
    cache_read: int | None = None
    cache_write: int | None = None


class PriceTier(NamedTuple):
    """Prices of ALL tokens of a call whose input and cache tokens are more than the bound."""

    above_input_tokens: int
    prices: TokenPrices


class ModelPrices(NamedTuple):
    """A model's prices: those of the highest tier that a call exceeds, else the base.

    Tiers are in the order of their bounds.
    """

    base: TokenPrices
    tiers: tuple[PriceTier, ...] = ()


class ModelVersion(NamedTuple):
    """A model's prices from a time on. None: it has no price from then on.

    `history_id` of every version: the history row that says so, None outside a database.
    """

    effective_time_ms: int
    prices: ModelPrices | None
    history_id: ObjectId | None = None


class CreditPriceVersion(NamedTuple):
    """The price of 1,000 credits from a time on, in micro-USD."""

    effective_time_ms: int
    credit_price_micros: int
    history_id: ObjectId | None = None


class ProfitVersion(NamedTuple):
    """The margin over cost from a time on, in ppm.

    None ends it: of a model's own margin, the global one applies again.
    """

    effective_time_ms: int
    profit_ppm: int | None
    history_id: ObjectId | None = None


class PriceVersionIds(NamedTuple):
    """The history rows that a charge goes by. None: nothing was in force."""

    ai_model_history_id: ObjectId | None
    billing_setting_history_id: ObjectId | None
    credits_profit_history_id: ObjectId | None


@dataclass(frozen=True, slots=True)
class Prices:
    """What a book is made of: versions in the order of their effective times.

    Of versions with the same effective time, the last counts. `models` and
    `model_profits` are keyed by the model's `value`. `inactive`: models that are not to be used.
    """

    models: Mapping[str, tuple[ModelVersion, ...]]
    credit_prices: tuple[CreditPriceVersion, ...]
    profits: tuple[ProfitVersion, ...]
    model_profits: Mapping[str, tuple[ProfitVersion, ...]]
    inactive: frozenset[str] = frozenset()


_T = TypeVar("_T")


class _Timeline(NamedTuple, Generic[_T]):
    """What is in force when: `values[bisect_right(times, time)]`, None before the first time.

    `history_ids` are of the same places.
    """

    times: tuple[int, ...]
    values: tuple[_T | None, ...]
    history_ids: tuple[ObjectId | None, ...]

    def history_id(self, time_ms: int) -> ObjectId | None:
        """The row that says what is in force; None for nothing."""
        place = bisect_right(self.times, time_ms)
        return None if self.values[place] is None else self.history_ids[place]


class _Bands(NamedTuple):
    """Prices by total input: `rates[bisect_left(bounds, tokens)]`: input, output, read, write."""

    bounds: tuple[int, ...]
    rates: tuple[tuple[int, int, int, int], ...]


def reckon(
    bounds: tuple[int, ...],
    rates: tuple[tuple[int, int, int, int], ...],
    credit_price: int,
    profit_ppm: int,
    input_tokens: int,
    output_tokens: int,
    cache_read_tokens: int,
    cache_write_tokens: int,
) -> Charge:
    """What these tokens cost at these prices: see `PriceBook.charge`. AMOUNT_OUT_OF_RANGE."""
    band = bisect_left(bounds, input_tokens + cache_read_tokens + cache_write_tokens)
    input_rate, output_rate, read_rate, write_rate = rates[band]
    # In micro-USD times a million.
    input_cost = (
        input_tokens * input_rate + cache_read_tokens * read_rate + cache_write_tokens * write_rate
    )
    cost = input_cost + output_tokens * output_rate
    # Exactly, micro-credits are cost * 1000 / credit_price: the million of the
    # token prices is that of the micro-credits, the 1,000 the credit price's.
    credits_micros = -(-cost * (MICROS + profit_ppm) // (credit_price * 1_000))
    cost_price_micros = -(-cost // MICROS)
    if credits_micros > MAX_MICROS or cost_price_micros > MAX_MICROS:
        in_range("credits_micros", credits_micros)
        in_range("cost_price_micros", cost_price_micros)
    cost_credits = cost * CREDITS_PER_CREDIT_PRICE // credit_price
    input_credits = credits_micros * input_cost // cost if cost else 0
    return Charge(
        credits_micros,
        input_credits,
        credits_micros - input_credits,
        cost_credits,
        credits_micros - cost_credits,
        cost_price_micros,
        credit_price,
        profit_ppm,
    )


class PriceBook:
    """Prices, credit price and margins of all times. Immutable; compared by its `prices`."""

    __slots__ = ("_credit_prices", "_model_profits", "_models", "_profits", "prices")

    def __init__(self, prices: Prices, before: "PriceBook | None" = None) -> None:
        """ValueError for versions out of order or amounts that make no price.

        Models whose versions are the very same as in the book `before` cost nothing to make.
        """
        self.prices = prices
        known = {} if before is None else before.prices.models
        made = {} if before is None else before._models
        self._models: dict[str, _Timeline[_Bands]] = {
            value: made[value] if known.get(value) is versions else _model(versions)
            for value, versions in prices.models.items()
        }
        self._credit_prices = _timeline(
            (time, _checked(price, minimum=1), row) for time, price, row in prices.credit_prices
        )
        self._profits = _profit_timeline(prices.profits)
        self._model_profits = {
            value: _profit_timeline(versions) for value, versions in prices.model_profits.items()
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PriceBook) and self.prices == other.prices

    def charge(
        self,
        ai_model: str,
        occurred_time_ms: int,
        input_tokens: int,
        output_tokens: int,
        cache_read_tokens: int,
        cache_write_tokens: int,
    ) -> Charge:
        """What these tokens cost by what was in force at `occurred_time_ms`.

        The kinds of tokens are disjoint and none is negative (the contract
        checks it). Total: ceiling, once. Cost: floor, profit the rest. Input
        (with both cache kinds): floor of its share, output the rest. Cost in
        money: ceiling. PRICE_NOT_FOUND when the model, the credit price or the
        margin had no version in force; AMOUNT_OUT_OF_RANGE beyond int64.
        """
        # Runs once per usage event: written out, no calls that it can do without.
        model = self._models.get(ai_model)
        bands = model and model[1][bisect_right(model[0], occurred_time_ms)]
        times, credit_prices, _ = self._credit_prices
        credit_price = credit_prices[bisect_right(times, occurred_time_ms)]
        profit_ppm = self._profit_ppm(ai_model, occurred_time_ms)
        if bands is None or credit_price is None or profit_ppm is None:
            raise _price_not_found(ai_model, occurred_time_ms, priced=bands is not None)
        return reckon(
            bands.bounds,
            bands.rates,
            credit_price,
            profit_ppm,
            input_tokens,
            output_tokens,
            cache_read_tokens,
            cache_write_tokens,
        )

    def pin(self, ai_model: str, time_ms: int) -> PinnedPrices:
        """What `charge` goes by at that time. PRICE_NOT_FOUND."""
        model = self._models.get(ai_model)
        bands = model and model[1][bisect_right(model[0], time_ms)]
        times, credit_prices, _ = self._credit_prices
        credit_price = credit_prices[bisect_right(times, time_ms)]
        profit_ppm = self._profit_ppm(ai_model, time_ms)
        if bands is None or credit_price is None or profit_ppm is None:
            raise _price_not_found(ai_model, time_ms, priced=bands is not None)
        versions = (*self.versions(ai_model, time_ms), None)
        return PinnedPrices(bands.bounds, bands.rates, credit_price, profit_ppm, 0, versions)

    def is_active(self, ai_model: str) -> bool:
        """Whether the model may be used. Usage that has happened is billed all the same."""
        return ai_model not in self.prices.inactive

    def versions(self, ai_model: str, time_ms: int) -> PriceVersionIds:
        """The versions that `charge` goes by at that time."""
        model = self._models.get(ai_model)
        own = self._model_profits.get(ai_model)
        return PriceVersionIds(
            model and model.history_id(time_ms),
            self._credit_prices.history_id(time_ms),
            (own and own.history_id(time_ms)) or self._profits.history_id(time_ms),
        )

    def _profit_ppm(self, ai_model: str, time_ms: int) -> int | None:
        own = self._model_profits.get(ai_model)
        if own:
            profit_ppm = own[1][bisect_right(own[0], time_ms)]
            if profit_ppm is not None:
                return profit_ppm
        times, profits, _ = self._profits
        return profits[bisect_right(times, time_ms)]


def _model(versions: Iterable[ModelVersion]) -> _Timeline[_Bands]:
    return _timeline((time, model and _bands(model), row) for time, model, row in versions)


def _timeline(versions: Iterable[tuple[int, _T | None, ObjectId | None]]) -> _Timeline[_T]:
    versions = tuple(versions)
    times = tuple(time for time, _, _ in versions)
    if any(later < earlier for earlier, later in pairwise(times)):
        raise ValueError("versions must be in the order of their effective times")
    values = (None, *(value for _, value, _ in versions))
    return _Timeline(times, values, (None, *(row for _, _, row in versions)))


def _profit_timeline(versions: Iterable[ProfitVersion]) -> _Timeline[int]:
    return _timeline(
        (time, None if profit_ppm is None else _checked(profit_ppm), row)
        for time, profit_ppm, row in versions
    )


def _bands(prices: ModelPrices) -> _Bands:
    bounds = tuple(tier.above_input_tokens for tier in prices.tiers)
    if any(later <= earlier for earlier, later in pairwise((-1, *bounds))):
        raise ValueError("tiers must be in the order of their bounds, from 0")
    rates = (prices.base, *(tier.prices for tier in prices.tiers))
    return _Bands(bounds, tuple(_rates(rate) for rate in rates))


def _rates(prices: TokenPrices) -> tuple[int, int, int, int]:
    cache_read = prices.input if prices.cache_read is None else prices.cache_read
    cache_write = prices.input if prices.cache_write is None else prices.cache_write
    return (
        _checked(prices.input),
        _checked(prices.output),
        _checked(cache_read),
        _checked(cache_write),
    )


def _checked(amount: int, minimum: int = 0) -> int:
    if minimum <= amount <= MAX_MICROS:
        return amount
    raise ValueError(f"{amount} is not between {minimum} and {MAX_MICROS}")


def _price_not_found(ai_model: str, time_ms: int, *, priced: bool) -> DomainError:
    missing = "no credit price or margin was" if priced else f"{ai_model!r} had no price"
    return DomainError(
        Reason.PRICE_NOT_FOUND,
        f"{missing} in force at {iso(time_ms)}",
        {"ai_model": ai_model, "occurred_time": iso(time_ms)},
    )
