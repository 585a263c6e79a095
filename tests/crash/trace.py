"""Real rows as usage events, and what they must cost: worked out here, not by the server.

    charge = ceil(tokens x price / a million, plus the margin, in credits)

in exact fractions. Prices are micro-USD per million tokens, amounts micro-credits.
"""

import csv
import math
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from bson import ObjectId
from zaaz.credits.v1.usage_service_pb2 import UsageEvent

from server.credits.prices.importing import package_seed
from server.credits.prices.seed import CREDIT_PRICE_MICROS, PROFIT_PPM
from tests.serving import MODEL, new_key

FILE = Path(__file__).parents[1] / "data" / "azure_llm_trace_conv.csv"
MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Of one model: what a token in and a token out cost, in micro-credits."""

    model: str
    input_token: Fraction
    output_token: Fraction

    @staticmethod
    def of(model: str, input_usd_micros: int, output_usd_micros: int) -> "Price":
        """From prices in micro-USD per million tokens."""
        # A credit costs a thousandth of the credit price.
        credit = Fraction(CREDIT_PRICE_MICROS, 1_000)
        margin = 1 + Fraction(PROFIT_PPM, 1_000_000)
        token_in = Fraction(input_usd_micros, 1_000_000) * margin / credit * MICROS
        token_out = Fraction(output_usd_micros, 1_000_000) * margin / credit * MICROS
        return Price(model, token_in, token_out)

    def charge(self, input_tokens: int, output_tokens: int) -> int:
        """Rounded up, once."""
        return math.ceil(input_tokens * self.input_token + output_tokens * self.output_token)


def prices() -> tuple[Price, Price]:
    """A model as everybody uses it, and one whose charges have to be rounded."""
    return Price.of(MODEL, 150_000, 600_000), next(_odd_prices())


def _odd_prices() -> Iterator[Price]:
    for model in package_seed("tests").models:
        base = model.versions[0].prices
        if len(model.versions) == 1 and base is not None and not base.tiers:
            price = Price.of(model.value, base.base.input, base.base.output)
            if price.input_token.denominator > 1 and price.output_token.denominator > 1:
                yield price


@dataclass(frozen=True, slots=True)
class Workload:
    """Events over users, and what each has to cost by its usage_key."""

    user_ids: tuple[str, ...]
    events: tuple[UsageEvent, ...]
    charges: dict[str, int]

    def owed(self) -> Counter[str]:
        """What each user's events cost in all."""
        owed: Counter[str] = Counter()
        for event in self.events:
            owed[event.user_id] += self.charges[event.usage_key]
        return owed


def make_workload(events: int, users: int, rng: random.Random) -> Workload:
    """So many rows from somewhere in the trace, dealt to users at random."""
    with FILE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    first = rng.randrange(len(rows) - events)
    user_ids = tuple(str(ObjectId()) for _ in range(users))
    common, odd = prices()
    run, now_ms = new_key(), time.time_ns() // 1_000_000
    made, charges = [], {}
    for place, row in enumerate(rows[first : first + events]):
        price = odd if rng.random() < 0.2 else common
        tokens = int(row["ContextTokens"]), int(row["GeneratedTokens"])
        event = UsageEvent(
            usage_key=f"{run}-{place}",
            user_id=rng.choice(user_ids),
            ai_model=price.model,
            input_tokens=tokens[0],
            output_tokens=tokens[1],
        )
        event.occurred_time.FromMilliseconds(now_ms - events + place)
        made.append(event)
        charges[event.usage_key] = price.charge(*tokens)
    return Workload(user_ids, tuple(made), charges)
