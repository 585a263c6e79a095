"""What usage costs, end to end: the package's own prices, in exact fractions, as the oracle."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Any, NamedTuple

import pytest
from genai_prices.data import providers
from genai_prices.types import ModelPrice, TieredPrices
from zaaz.credits.v1 import credits_service_pb2 as credits_pb

from tests.serving import ManualClock, Served, usage_event
from tests.usage.partners import partner

MICROS = 1_000_000
USD_PER_CREDIT = Fraction(1, 1_000)
MARGIN = Fraction(20, 100)
FUNDS = 10**15

SONNET = "anthropic/claude-sonnet-4-5"
GEMINI = "google/gemini-2.5-pro"
MINI = "openai/gpt-4o-mini"
DATED = "deepseek/deepseek-v4-flash"

Tokens = tuple[int, int, int, int]
"""Input, output, cache reads, cache writes."""


class Cost(NamedTuple):
    """In micro-credits, but for `usd_micros`."""

    total: int
    input: int
    cost: int
    usd_micros: int


def expected(ai_model: str, tokens: Tokens, moment: datetime) -> Cost:
    """ARCHITECTURE.md's rounding over exact amounts: total up, shares down."""
    prices = _prices(ai_model, moment)
    counted, written, read, cached = tokens
    whole_input = counted + read + cached
    per_token = [
        _usd(price, whole_input)
        for price in (
            prices.input_mtok,
            prices.output_mtok,
            prices.input_mtok if prices.cache_read_mtok is None else prices.cache_read_mtok,
            prices.input_mtok if prices.cache_write_mtok is None else prices.cache_write_mtok,
        )
    ]
    input_usd = counted * per_token[0] + read * per_token[2] + cached * per_token[3]
    usd = input_usd + written * per_token[1]
    exact = usd / USD_PER_CREDIT * MICROS
    total = ceil(exact * (1 + MARGIN))
    input_share = floor(total * input_usd / usd) if usd else 0
    return Cost(total, input_share, floor(exact), ceil(usd * MICROS))


def _prices(ai_model: str, moment: datetime) -> ModelPrice:
    provider_id, _, model_id = ai_model.partition("/")
    provider = next(one for one in providers if one.id == provider_id)
    model = next(one for one in provider.models if one.id == model_id)
    return model.get_prices(moment)


def _usd(price: Decimal | TieredPrices | None, input_tokens: int) -> Fraction:
    """Of one token."""
    if isinstance(price, TieredPrices):
        reached = [tier.price for tier in price.tiers if input_tokens > tier.start]
        price = reached[-1] if reached else price.base
    return Fraction(price or 0) / MICROS


async def billed(served: Served, ai_model: str, *tokens: Tokens, occurred_ms: int = 0) -> list[Any]:
    """The usages of events with these tokens, of a user of their own."""
    user_id = await served.new_wallet(FUNDS)
    await served.record(*_events(user_id, ai_model, tokens, occurred_ms))
    request = credits_pb.ListCreditsUsagesRequest(user_id=user_id, page_size=1_000)
    usages = list((await served.credits.ListCreditsUsages(request)).credits_usages)[::-1]
    assert len(usages) == len(tokens)
    wallet = await served.wallet(user_id)
    assert wallet.credits_micros == FUNDS - sum(usage.credits_micros for usage in usages)
    await served.assert_sound(user_id)
    return usages


def _events(
    user_id: str, ai_model: str, tokens: Sequence[Tokens], occurred_ms: int = 0
) -> list[Any]:
    return [
        usage_event(
            user_id,
            ai_model=ai_model,
            input_tokens=counted,
            output_tokens=written,
            cache_read_tokens=read,
            cache_write_tokens=cached,
            occurred_ms=occurred_ms,
        )
        for counted, written, read, cached in tokens
    ]


def assert_costs(usage: Any, cost: Cost) -> None:
    assert usage.credits_micros == cost.total
    assert usage.input_credits_micros == cost.input
    assert usage.output_credits_micros == cost.total - cost.input
    assert usage.cost_credits_micros == cost.cost
    assert usage.profit_credits_micros == cost.total - cost.cost
    assert usage.cost_price_micros == cost.usd_micros


CALLS: list[Tokens] = [
    (1_000, 500, 0, 0),
    (1, 1, 1, 1),
    (7, 0, 0, 0),
    (0, 3, 0, 0),
    (0, 0, 11, 0),
    (0, 0, 0, 13),
    (0, 0, 0, 0),
    (123_457, 8_191, 45_678, 30_865),
    (200_000, 10, 0, 0),
    (200_001, 10, 0, 0),
    (100_000, 999, 60_000, 40_000),
    (100_000, 999, 60_000, 40_001),
    (0, 1, 200_001, 0),
    (3_000_000_017, 1_000_000_007, 99_999_989, 15_485_863),
]


class TestPrices:
    @pytest.mark.parametrize("ai_model", [SONNET, GEMINI, MINI])
    async def test_are_exact_for_every_kind_of_token(self, served: Served, ai_model: str) -> None:
        now = datetime.now(UTC)
        usages = await billed(served, ai_model, *CALLS)
        for usage, tokens in zip(usages, CALLS, strict=True):
            assert_costs(usage, expected(ai_model, tokens, now))

    async def test_of_tiers_apply_to_the_whole_call(self, served: Served) -> None:
        at_bound, above = await billed(
            served, SONNET, (200_000, 1_000, 0, 0), (200_001, 1_000, 0, 0)
        )
        # 3 and 15 dollars a million up to 200,000 tokens of input, 6 and 22.50 above.
        assert at_bound.cost_price_micros == 600_000 + 15_000
        assert above.cost_price_micros == 1_200_006 + 22_500

    async def test_are_those_in_force_when_it_was_used(
        self, clocked: Served, manual_clock: ManualClock
    ) -> None:
        change = datetime(2026, 9, 10, tzinfo=UTC)
        change_ms = int(change.timestamp()) * 1_000
        before, after = (
            expected(DATED, CALLS[0], datetime.fromtimestamp((change_ms + ms) / 1_000, UTC))
            for ms in (-1, 0)
        )
        assert before != after
        manual_clock.now_ms = change_ms + 86_400_000
        for occurred_ms, cost in {change_ms - 1: before, change_ms: after}.items():
            (usage,) = await billed(clocked, DATED, CALLS[0], occurred_ms=occurred_ms)
            assert_costs(usage, cost)

    async def test_of_costs_are_shown_to_admins_only(self, served: Served) -> None:
        user_id = await served.new_wallet(FUNDS)
        (result,) = await served.record(*_events(user_id, MINI, CALLS[:1]))
        request = credits_pb.GetCreditsUsageRequest(id=result.receipt.credits_transaction_id)
        internal = (
            "credit_price_micros",
            "profit_ppm",
            "profit_credits_micros",
            "cost_credits_micros",
            "cost_price_micros",
        )
        shown = (await served.credits.GetCreditsUsage(request)).credits_usage
        assert all(getattr(shown, field) for field in internal)
        async with partner(served, scopes=["credits.read"]) as other:
            seen = (await other.credits.GetCreditsUsage(request)).credits_usage
        assert not any(getattr(seen, field) for field in internal)
        assert seen.credits_micros == shown.credits_micros
