"""Quick by default, full when asked, and said in whatever is told or kept."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import __main__ as program
from bench import growth, memory, results
from bench.figures import FIGURES
from bench.measures import MEASURES
from bench.setting import Plan, Size, announce
from tests.bench.lines import a_figure

Line = dict[str, Any]


@given(st.integers(1, 10**7), st.integers(1, 10**7), st.floats(0.0001, 2))
def test_a_scale_has_its_own_size_and_a_factor_multiplies_it(
    quick: int, full: int, factor: float
) -> None:
    size = Size(quick, full)
    assert Plan(1).operations(size) == Plan(1).size(size) == quick
    assert Plan(1, full=True).operations(size) == Plan(1, full=True).size(size) == full
    assert Plan(1, factor).operations(size) == max(1, round(quick * factor))
    assert Plan(1, factor).size(size) == quick


def test_figures_of_record_are_as_large_as_they_say() -> None:
    full = Plan(1, full=True)
    assert full.size(growth.ENTRIES) == 2_000_000
    assert full.size(memory.EVENTS) == 1_000_000


@pytest.mark.parametrize("one", [one for one in (*FIGURES, *MEASURES) if "{" in one.what])
def test_what_depends_on_the_scale_says_so(one: Any, capsys: pytest.CaptureFixture[str]) -> None:
    quick = announce(one.name, one.what, one.size, Plan(1))
    assert f"{one.size.quick:,}" in quick
    assert f"at the quick scale; --full takes {one.size.full:,} instead" in capsys.readouterr().err
    full = announce(one.name, one.what, one.size, Plan(1, full=True))
    assert f"{one.size.full:,}" in full
    assert "scale" not in capsys.readouterr().err


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Plan]:
    """What figures are asked to be taken by; runs are kept in the test's own file."""
    asked: list[Plan] = []

    async def take(one: Any, plan: Plan) -> Line:
        asked.append(plan)
        return a_figure(one.name, scale=plan.told)

    monkeypatch.setattr(program, "take_figure", take)
    monkeypatch.setattr(program, "describe", lambda: "a machine")
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    monkeypatch.setattr(results, "RESULTS", tmp_path / "RESULTS.md")
    results.RESULTS.write_text(results.RUNS_MARK)
    return asked


@pytest.mark.parametrize(
    ("arguments", "plan", "told"),
    [
        ([], Plan(3), "quick scale"),
        (["--full"], Plan(6, full=True), "full scale"),
        (["--scale", "0.1", "--pairs", "2"], Plan(2, 0.1), "quick x 0.1 scale"),
    ],
)
def test_the_scale_is_kept(
    arguments: list[str],
    plan: Plan,
    told: str,
    plans: list[Plan],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert program.main(["growth", "holds", "--write", *arguments]) == 0
    assert plans == [plan, plan]
    assert f"a machine; {told}; pairs of each: 3.\n" in results.RESULTS.read_text()
    assert f"bench: {told}" in capsys.readouterr().err


def test_a_figure_that_there_is_not_is_refused_before_any_is_taken(plans: list[Plan]) -> None:
    with pytest.raises(SystemExit, match="2"):
        program.main(["growth", "growht"])
    assert not plans
