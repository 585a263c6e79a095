"""The comparison: in turns, by rounds, and with every run's books looked at."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import repeat
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.compare import contest
from bench.compare.contest import TIGHT_DEBITS, Series, summarize, take_rounds
from bench.compare.medici import LeftOutError
from bench.processes import Served
from bench.results import Taken, table
from bench.setting import Bench, Plan
from bench.wallets import FUNDS_MICROS
from tests.bench.lines import a_measure
from tests.bench.sides import Scripted


async def _series(contestant: Scripted, wallets: int = 2) -> Series:
    return Series(contestant, await contestant.fund(wallets, FUNDS_MICROS))


async def test_odd_rounds_go_the_other_way_round() -> None:
    order: list[str] = []
    series = [await _series(Scripted(name, [1] * 3, order)) for name in ("ours", "naive")]
    await take_rounds(series, 2, 1.0)
    assert order == ["ours", "naive", "naive", "ours", "ours", "naive"]


async def test_ratios_are_of_rounds_and_have_their_spread() -> None:
    # The first of each only warms up. Medians: 30 over 20; of the rounds: 0.5, 1 and 6.
    ours, naive = Scripted("ours, gRPC", [9, 10, 30, 60]), Scripted("naive, gRPC", [9, 20, 30, 10])
    series = [await _series(ours), await _series(naive)]
    await take_rounds(series, 3, 1.0)
    said = summarize(series)
    assert said["ratios"] == [
        {"over": "naive, 2 wallets", "ratio": 1.0, "spread": [0.5, 6.0], "runs": 3}
    ]
    assert (said["value"], said["ratio"], said["spread"], said["runs"]) == (1.0, 1.0, [0.5, 6.0], 3)
    assert said["unit"] == "times the debits, over naive, 2 wallets"


async def test_each_number_of_wallets_has_its_ratio_over_each_other() -> None:
    names = ("ours, gRPC", "naive, gRPC", "medici, here")
    series = [await _series(Scripted(name, [1, 1]), count) for count in (3, 1) for name in names]
    await take_rounds(series, 1, 1.0)
    over = [each["over"] for each in summarize(series)["ratios"]]
    assert over == [
        "naive, 3 wallets",
        "medici, 3 wallets",
        "naive, one wallet",
        "medici, one wallet",
    ]


async def test_who_gets_nothing_done_is_no_division_by_zero() -> None:
    series = [await _series(Scripted("ours", [1, 8])), await _series(Scripted("naive", [1, 0]))]
    await take_rounds(series, 1, 1.0)
    assert summarize(series)["ratio"] == 8.0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=4))
async def test_books_that_add_up_are_right(script: list[int]) -> None:
    series = await _series(Scripted("ours", script))
    for _ in script:
        await series.run(1.0)
    assert series.row(granted=200)["books"] == "right"


async def test_a_wrong_sum_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    contestant = Scripted("naive, gRPC", [5, 5])
    series = await _series(contestant)
    await series.run(1.0)
    assert series.books == "right"
    contestant.lost_micros = 7
    await series.run(1.0)
    assert series.row(granted=200)["books"] == "balances are off by -7 micro-credits"
    said = "bench: compare: naive, gRPC: balances are off by -7 micro-credits"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("stored", [-1, 1])
async def test_debits_that_are_lost_or_were_not_answered_are_told(stored: int) -> None:
    contestant = Scripted("naive, gRPC", [5])
    series = await _series(contestant)
    contestant.stray_debits = stored
    await series.run(1.0)
    assert series.books == f"{5 + stored} debits are stored of 5 that were answered"


async def test_who_cannot_be_had_is_named_in_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def naive(_: Bench) -> AsyncIterator[Scripted]:
        yield Scripted("naive, gRPC", repeat(TIGHT_DEBITS))

    @asynccontextmanager
    async def medici(_: Bench) -> AsyncIterator[Scripted]:
        raise LeftOutError("npm ci failed: no network")
        yield Scripted("medici", [])

    ours = Scripted("ours, gRPC", repeat(TIGHT_DEBITS))
    monkeypatch.setattr(contest, "Ours", lambda _: ours)
    monkeypatch.setattr(contest, "naive", naive)
    monkeypatch.setattr(contest, "medici", medici)
    served = Served("", "", "", {})
    async with grpc.aio.insecure_channel("localhost:1") as channel:
        said = await contest.compare(Bench(served, channel, Path(), Plan(1, 1.0)))
    assert said["left_out"] == {"medici": "npm ci failed: no network"}
    assert [row["service"] for row in said["rows"]] == ["ours, gRPC", "naive, gRPC"] * 2
    assert "left_out medici npm ci failed: no network" in table(Taken(measures=[a_measure(**said)]))


async def test_a_wallet_below_zero_is_overspent() -> None:
    series = Series(contestant := Scripted("naive", [5]), await contestant.fund(1, 1_000))
    await series.run(1.0)
    assert series.row(granted=203)["overspent"] == 1 + 3
