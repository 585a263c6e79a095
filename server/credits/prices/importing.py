"""The price list of the `genai-prices` package, as it is installed. Nothing is fetched.

Import this module only to use it: the package takes up to a second to load.

What is taken: models with an input or output price per token; their base,
cache and tiered prices; the dates on which these begin, with the oldest
applying since the epoch. What a charge cannot know is left out: prices by the
request, search, page, hour or modality, longer-lived cache writes, reasoning
tokens of their own price, and variants such as batch or priority service.

Prices by the time of day (peak surcharges, off-peak discounts) are left out
too, and the model has the price that the list gives without such a condition:
a version is in force from one moment on, and one that alternates every day
would need two versions a day.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib.metadata import version
from typing import Final

from genai_prices.data import providers
from genai_prices.types import (
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    TieredPrices,
)

from server.credits.prices.model import (
    EPOCH_MS,
    ModelPrices,
    ModelVersion,
    PriceTier,
    TokenPrices,
)
from server.credits.prices.seed import ModelKind, Seed, SeedModel
from server.kernel.money import MICROS, ceil_div

PACKAGE: Final = "genai-prices"

_INPUT, _OUTPUT = "input_mtok", "output_mtok"
_KINDS = (_INPUT, _OUTPUT, "cache_read_mtok", "cache_write_mtok")

_PackagePrice = Decimal | TieredPrices | None


def package_seed(why: str) -> Seed:
    """Every priced model of the installed package, ordered by value; `why` comes before its name.

    The default credit price and margin are with it.
    """
    source = f"{PACKAGE} {version(PACKAGE)}"
    return Seed(f"{why}: {source}", seed_models(providers), source=source)


def seed_models(listed: Sequence[Provider]) -> tuple[SeedModel, ...]:
    """The priced models of these providers, ordered by value."""
    models = (_model(provider, model) for provider in listed for model in provider.models)
    priced = (model for model in models if model.versions)
    return tuple(sorted(priced, key=lambda model: model.value))


def _model(provider: Provider, model: ModelInfo) -> SeedModel:
    versions = tuple(_versions(model.prices))
    return SeedModel(
        value=f"{provider.id}/{model.id}",
        name=model.name or model.id,
        provider=provider.id,
        kind=_kind(model.prices),
        versions=versions,
    )


def _kind(prices: ModelPrice | Sequence[ConditionalPrice]) -> ModelKind:
    # The package does not say; what charges nothing for output (embeddings,
    # rerankers, classifiers) writes no text.
    each = [prices] if isinstance(prices, ModelPrice) else [one.prices for one in prices]
    writes = any(_price(one, _OUTPUT) is not None for one in each)
    return ModelKind.LLM if writes else ModelKind.OTHER


def _versions(prices: ModelPrice | Sequence[ConditionalPrice]) -> Iterator[ModelVersion]:
    """What changes when, by `ModelInfo.get_prices` without its times of day."""
    listed = [ConditionalPrice(prices=prices)] if isinstance(prices, ModelPrice) else prices
    if not listed:
        return
    starting = [(start, one.prices) for one in listed if (start := _start_ms(one)) is not None]
    last: ModelPrices | None = None
    for start_ms in sorted({EPOCH_MS, *(start for start, _ in starting)}):
        # The last listed that has begun; the first if none has.
        in_force = [one for start, one in starting if start <= start_ms] or [listed[0].prices]
        current = _token_prices(in_force[-1])
        if current != last:
            yield ModelVersion(start_ms, current)
        last = current


def _start_ms(price: ConditionalPrice) -> int | None:
    """When it begins; None for a price by the time of day."""
    if price.constraint is None:
        return EPOCH_MS
    if isinstance(price.constraint, StartDateConstraint):
        return midnight_ms(price.constraint.start_date)
    return None


def midnight_ms(day: date) -> int:
    """When a day begins in UTC, as the package has it."""
    return int(datetime.combine(day, time(), UTC).timestamp()) * 1_000


def _token_prices(prices: ModelPrice) -> ModelPrices | None:
    """Its prices per token; None without any for input and output."""
    by_kind = [_price(prices, kind) for kind in _KINDS]
    if by_kind[0] is None and by_kind[1] is None:
        return None
    starts = {
        tier.start for price in by_kind if isinstance(price, TieredPrices) for tier in price.tiers
    }
    return ModelPrices(
        _tokens(by_kind, above=None),
        tuple(PriceTier(start, _tokens(by_kind, above=start)) for start in sorted(starts)),
    )


def _price(prices: ModelPrice, kind: str) -> _PackagePrice:
    price: _PackagePrice = getattr(prices, kind)
    return price


def _tokens(by_kind: Sequence[_PackagePrice], above: int | None) -> TokenPrices:
    # What has no price costs nothing, as in the package; but a cache price that
    # is not there is the input's.
    input_price, output_price, cache_read, cache_write = (_at(price, above) for price in by_kind)
    return TokenPrices(input_price or 0, output_price or 0, cache_read, cache_write)


def _at(price: _PackagePrice, above: int | None) -> int | None:
    """The price of a call that exceeds tiers up to the one that starts at `above`."""
    if price is None:
        return None
    if isinstance(price, Decimal):
        return micros_rounded_up(price)
    reached = [tier.price for tier in price.tiers if above is not None and tier.start <= above]
    return micros_rounded_up(reached[-1] if reached else price.base)


def micros_rounded_up(usd: Decimal) -> int:
    """US dollars as micro-USD: exact, a fraction of a micro-USD rounded up."""
    numerator, denominator = usd.as_integer_ratio()
    return ceil_div(numerator * MICROS, denominator)
