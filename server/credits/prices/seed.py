"""What a first run puts into an empty database: models with prices, a credit price, a margin."""

from dataclasses import dataclass
from enum import IntEnum

from server.credits.prices.model import (
    EPOCH_MS,
    CreditPriceVersion,
    ModelVersion,
    Prices,
    ProfitVersion,
)

CREDIT_PRICE_MICROS = 1_000_000
"""Micro-USD per 1,000 credits at first: a dollar buys 1,000 credits."""

PROFIT_PPM = 200_000
"""The margin over cost at first: 20 %."""


class ModelKind(IntEnum):
    """`zaaz.credits.v1.AiModelKind`."""

    LLM = 1
    OTHER = 2


@dataclass(frozen=True, slots=True)
class SeedModel:
    """A model and all versions of its prices, in the order of their effective times."""

    value: str
    name: str
    provider: str
    kind: ModelKind
    versions: tuple[ModelVersion, ...]


@dataclass(frozen=True, slots=True)
class Seed:
    """All that seeding writes. `why` says where it is from, in every history row; `source` who.

    Models are ordered by `value`. Credit price and margin apply since the epoch.
    """

    why: str
    models: tuple[SeedModel, ...]
    credit_price_micros: int = CREDIT_PRICE_MICROS
    profit_ppm: int = PROFIT_PPM
    source: str = ""

    def prices(self) -> Prices:
        """What the book of a database holds that had nothing but this seed."""
        return Prices(
            models={model.value: model.versions for model in self.models},
            credit_prices=(CreditPriceVersion(EPOCH_MS, self.credit_price_micros),),
            profits=(ProfitVersion(EPOCH_MS, self.profit_ppm),),
            model_profits={},
        )


@dataclass(frozen=True, slots=True)
class SeedReport:
    """What seeding added. Everything is 0 or False when all of it was there."""

    models_added: int
    versions_added: int
    credit_price_added: bool
    profit_added: bool
