"""What a run's table shows, and how it is kept."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import machine, results
from bench.results import RUNS_MARK, Taken, keep, table
from tests.bench.lines import a_figure, a_measure

NAMES = st.text(st.characters(categories=["Ll"], include_characters="_"), min_size=1, max_size=30)


def rows_of(text: str) -> list[dict[str, str]]:
    """The first table in the text, a row each by its column's head."""
    lines = [line for line in text.split("\n\n")[0].splitlines() if line.startswith("|")]
    head, _, *body = ([cell.strip() for cell in line[2:-2].split(" | ")] for line in lines)
    return [dict(zip(head, row, strict=True)) for row in body]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "RESULTS.md"
    monkeypatch.setattr(results, "RESULTS", path)
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    return path


def test_a_figure_shows_both_sides_and_what_they_cost() -> None:
    (row,) = rows_of(table(Taken(figures=[a_figure()])))
    assert row == {
        "figure": "usage_40",
        "ratio": "**0.62**",
        "aim": "0.80",
        "lowest to highest": "0.61 to 0.64",
        "ours/s": "17,243",
        "baseline/s": "28,470",
        "p50 ms": "12.3",
        "p99 ms": "56.8",
        "CPU µs an operation": "server 44, mongod 36",
        "baseline's": "mongod 21, client 9",
        "not used": "15% idle, 5% others",
        "peak MiB": "server 176, mongod 1,048",
    }


def test_a_measure_shows_its_value_and_what_it_cost() -> None:
    (row,) = rows_of(table(Taken(measures=[a_measure()])))
    assert row == {
        "measure": "memory",
        "value": "**0.25 MiB per 100,000 events**",
        "aim": "flat",
        "CPU seconds": "server 31.2, mongod 20.0, others 1.0",
        "peak MiB": "server 176, mongod 1,048",
    }


def test_what_has_no_column_is_said_below() -> None:
    taken = Taken([a_figure(entries_before=200_000)], [a_measure(left_out={"medici": "no Node"})])
    said = table(taken).rstrip().split("\n\n")
    assert "- usage_40, events over inserts: entries_before 200,000" in said
    assert "- memory, memory while events are streamed: left_out medici no Node" in said


def test_a_comparison_has_its_ratios_and_rows_in_tables() -> None:
    ratios = [{"over": "naive, one wallet", "ratio": 23.1, "spread": [19.9, 26.3], "runs": 2}]
    rows = [{"service": "ours", "debits/s": 1_234.5, "CPU µs": {"server": 1_232}}]
    _, of_ratios, of_rows = table(Taken(measures=[a_measure(ratios=ratios, rows=rows)])).split(
        "\n\n"
    )
    assert rows_of(of_ratios) == [
        {
            "over": "naive, one wallet",
            "ratio": "**23.10**",
            "lowest to highest": "19.90 to 26.30",
            "runs": "2",
        }
    ]
    assert rows_of(of_rows) == [
        {"service": "ours", "debits/s": "1,234.5", "CPU µs": "server 1,232"}
    ]


def test_what_is_named_twice_over_is_told_apart() -> None:
    starts = {"grown": {"median": 1.5, "most": 2.25}, "empty": {"median": 1.0, "most": 1.0}}
    said = table(Taken(figures=[a_figure(cold_start_seconds=starts)]))
    assert "cold_start_seconds grown (median 1.5, most 2.25), empty (median 1.0, most 1.0)" in said


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_columns_are_as_wide_as_their_widest(names: list[str]) -> None:
    taken = Taken(figures=[a_figure(name) for name in names])
    lines = table(taken).splitlines()
    assert len({len(line) for line in lines[: len(names) + 2]}) == 1
    assert [row["figure"] for row in rows_of(table(taken))] == names


def test_the_newest_run_comes_first_and_older_ones_stay_as_they_are(kept: Path) -> None:
    before, older = "# Figures\n\nwritten by a person\n\n", "\n### an older run\n\n| x |\n"
    kept.write_text(before + RUNS_MARK + older)
    keep(Taken(figures=[a_figure("usage_40"), a_figure("rest_get", runs=4)]), "a machine", "quick")
    keep(Taken(measures=[a_measure()]), "another machine", "full")
    text = kept.read_text()
    assert text.startswith(f"{before}{RUNS_MARK}\n### {datetime.now(UTC).date()}, commit abc1234\n")
    assert text.endswith(f"\n{older}")
    newest, older_one = (
        text.index("another machine; full scale.\n"),
        text.index("a machine; quick scale; pairs of each: 3, 4.\n"),
    )
    assert newest < older_one < text.index("### an older run")
    assert text.count(RUNS_MARK) == 1


@given(st.text(max_size=200), st.text(max_size=200))
def test_nothing_else_in_the_file_changes(before: str, after: str) -> None:
    text = f"{before}{RUNS_MARK}{after}"
    kept_before, kept_after = results.with_run(text, "### the run\n").split("\n### the run\n", 1)
    assert kept_before + kept_after == text


def test_a_file_that_lost_its_mark_is_left_alone(kept: Path) -> None:
    kept.write_text("# Figures\n")
    with pytest.raises(ValueError, match="lost its line"):
        keep(Taken(figures=[a_figure()]), "a machine", "quick")
    assert kept.read_text() == "# Figures\n"


def test_a_copy_without_history_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert machine.commit() == "unknown"


def test_the_file_that_is_in_the_repository_can_be_added_to() -> None:
    text = results.RESULTS.read_text()
    assert text.count(RUNS_MARK) == 1
    assert len(results.with_run(text, "### a run\n")) > len(text)
