"""Ratios are of pairs, taken in both orders, and come with their spread."""

import os
from statistics import median

from hypothesis import given
from hypothesis import strategies as st

from bench.pairs import Sides, milliseconds, spread_of, summarize, take_pairs
from tests.bench.sides import Asked, a_pair

RATES = st.floats(min_value=1, max_value=1e6)
RATIOS = st.lists(st.floats(min_value=0.001, max_value=1e3), min_size=1, max_size=9)


async def test_odd_pairs_begin_with_the_baseline() -> None:
    order: list[str] = []
    told: list[str] = []
    sides = Sides(Asked("ours", order), Asked("baseline", order), (3, 5))
    pairs = await take_pairs(sides, 2, {"client": os.getpid()}, told.append)
    warm_up, first, second = order[:2], order[2:4], order[4:]
    assert warm_up == ["ours", "baseline"]
    assert first == ["baseline", "ours"]
    assert second == ["ours", "baseline"]
    # Whoever began, each side is told as itself.
    assert [(pair.ours.operations, pair.baseline.operations) for pair in pairs] == [(3, 5)] * 2
    assert [line.split(":")[0] for line in told] == ["warm-up", "pair 1/2", "pair 2/2"]


@given(RATIOS)
def test_a_spread_holds_its_median(ratios: list[float]) -> None:
    said = spread_of(ratios)
    lowest, highest = said["spread"]
    assert lowest <= said["ratio"] <= highest
    assert said["ratio"] == round(median(ratios), 3)
    assert (lowest, highest) == (round(min(ratios), 3), round(max(ratios), 3))
    assert said["runs"] == len(ratios)


def test_the_ratio_is_the_median_of_the_pairs_not_the_ratio_of_the_medians() -> None:
    # Medians of the sides: 200 over 100. Of the pairs: 0.1, 1 and 20.
    said = summarize([a_pair(100, 1_000), a_pair(200, 10), a_pair(100, 100)])
    assert (said["ratio"], said["spread"], said["runs"]) == (1.0, [0.1, 20.0], 3)


@given(st.lists(st.tuples(RATES, RATES), min_size=1, max_size=7))
def test_rates_are_of_a_run_that_there_was(rates: list[tuple[float, float]]) -> None:
    pairs = [a_pair(ours, baseline) for ours, baseline in rates]
    said = summarize(pairs)
    middle = (len(rates) - 1) // 2
    # As the samples have them: a rate that is divided and multiplied may come back a hair away.
    assert said["ours_per_second"] == round(sorted(p.ours.per_second for p in pairs)[middle])
    assert said["baseline_per_second"] == round(
        sorted(p.baseline.per_second for p in pairs)[middle]
    )


def test_costs_are_of_each_operation() -> None:
    (cost,) = summarize([a_pair(1_000, 500)])["ours"]["cpu_micros"].values()
    assert cost == 1_000.0  # a second for 1,000 operations


@given(st.lists(st.floats(min_value=0, max_value=60), min_size=1), st.integers(0, 100))
def test_a_percentile_is_one_of_the_latencies(seconds: list[float], percentile: int) -> None:
    ranked = sorted(seconds)
    assert milliseconds(ranked, percentile) in {round(each * 1_000, 2) for each in ranked}
    assert milliseconds(ranked, 0) <= milliseconds(ranked, percentile)


def test_percentiles_of_a_hundred() -> None:
    ranked = [place / 1_000 for place in range(100)]
    assert milliseconds(ranked, 50) == 50.0
    assert milliseconds(ranked, 99) == 99.0
    assert milliseconds([0.5], 99) == 500.0
