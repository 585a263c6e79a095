"""bench/RESULTS.md: every run that was worth keeping, newest first, under what a person wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import IDLE, OTHERS, commit

RESULTS = Path(__file__).parent / "RESULTS.md"
RUNS_MARK = "<!-- python -m bench --write puts the newest run below this line -->\n"
_FIGURES = (
    *("figure", "ratio", "aim", "lowest to highest", "ours/s", "baseline/s"),
    *("p50 ms", "p99 ms", "CPU µs an operation", "baseline's", "not used", "peak MiB"),
)
_MEASURES = ("measure", "value", "aim", "CPU seconds", "peak MiB")
_RATIOS = ("over", "ratio", "lowest to highest", "runs")
_SHOWN_OF_FIGURES = frozenset(
    (
        *("name", "what", "scale", "aim", "ratio", "spread", "runs", "ours", "baseline"),
        *("peak_rss_mib", "ours_per_second", "baseline_per_second", "wallets_seconds"),
    )
)
_SHOWN_OF_MEASURES = frozenset(
    (
        *("name", "what", "scale", "aim", "value", "unit", "cpu_seconds", "peak_rss_mib"),
        *("ratio", "spread", "runs", "ratios", "rows"),
    )
)

Line = Mapping[str, Any]


@dataclass(slots=True)
class Taken:
    """The lines of a run so far. `failed`: why a figure or measure is missing, by its name."""

    figures: list[dict[str, Any]] = field(default_factory=list)
    measures: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def keep(taken: Taken, machine: str, scale: str) -> None:
    """Adds a run's figures and measures to the file; all else in it stays as it is."""
    today = datetime.now(UTC).date().isoformat()
    pairs = ", ".join(sorted({str(line["runs"]) for line in taken.figures}))
    with_what = f"{machine}; {scale} scale{f'; pairs of each: {pairs}' if pairs else ''}."
    run = f"### {today}, commit {commit()}\n\n{with_what}\n\n{table(taken)}"
    RESULTS.write_text(with_run(RESULTS.read_text(), run))


def with_run(text: str, run: str) -> str:
    """The file's text with this run before all others. ValueError where they cannot be found."""
    before, mark, after = text.partition(RUNS_MARK)
    if not mark:
        raise ValueError(f"{RESULTS.name} has lost its line {RUNS_MARK.strip()}")
    return f"{before}{mark}\n{run}{after}"


def table(taken: Taken) -> str:
    """Figures and measures in columns, in Markdown that can be read as it stands."""
    parts = []
    if taken.figures:
        parts.append(_columns((_FIGURES, *map(_figure, taken.figures))))
        parts += [note for line in taken.figures if (note := _note(line, _SHOWN_OF_FIGURES))]
    if taken.measures:
        parts.append(_columns((_MEASURES, *map(_measure, taken.measures))))
        parts += [note for line in taken.measures if (note := _note(line, _SHOWN_OF_MEASURES))]
        parts += [
            _columns(rows)
            for line in taken.measures
            for rows in (_ratios(line), _rows(line))
            if rows
        ]
    parts += [f"- {name} could not be taken: {why}" for name, why in taken.failed.items()]
    return "\n\n".join(parts) + "\n"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *body = (
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in rows
    )
    return "\n".join((head, f"| {' | '.join('-' * width for width in widths)} |", *body))


def _note(line: Line, shown: frozenset[str]) -> str:
    """What a line says beyond the columns."""
    said = "; ".join(f"{name} {_cell(value)}" for name, value in line.items() if name not in shown)
    return f"- {line['name']}, {line['what']}: {said}" if said else ""


def _rows(line: Line) -> list[tuple[str, ...]]:
    rows = line.get("rows", ())
    return [tuple(row) for row in rows[:1]] + [tuple(map(_cell, row.values())) for row in rows]


def _ratios(line: Line) -> list[tuple[str, ...]]:
    """Of a measure that compares with more than one."""
    ratios = line.get("ratios", ())
    rows = [
        (each["over"], f"**{each['ratio']:.2f}**", _spread(each), str(each["runs"]))
        for each in ratios
    ]
    return [_RATIOS, *rows] if rows else []


def _spread(line: Line) -> str:
    lowest, highest = line["spread"]
    return f"{lowest:.2f} to {highest:.2f}"


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_inner(each)}" for name, each in value.items())
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _inner(value: Any) -> str:
    return f"({_cell(value)})" if isinstance(value, Mapping) else _cell(value)


def _measure(line: Line) -> tuple[str, ...]:
    cpu = {role: seconds for role, seconds in line["cpu_seconds"].items() if role != IDLE}
    return (
        line["name"],
        f"**{line['value']:,} {line['unit']}**",
        line["aim"],
        ", ".join(f"{role} {seconds:,.1f}" for role, seconds in cpu.items()),
        _by_role(line["peak_rss_mib"]),
    )


def _figure(line: Line) -> tuple[str, ...]:
    ours = line["ours"]
    cpu, baseline = dict(ours["cpu_micros"]), line["baseline"]["cpu_micros"]
    idle, others = cpu.pop(IDLE), cpu.pop(OTHERS)
    whole = sum((*cpu.values(), idle, others)) or 1.0
    return (
        line["name"],
        f"**{line['ratio']:.2f}**",
        f"{line['aim']:.2f}",
        _spread(line),
        f"{line['ours_per_second']:,}",
        f"{line['baseline_per_second']:,}",
        f"{ours['p50_ms']:.1f}",
        f"{ours['p99_ms']:.1f}",
        _by_role(cpu),
        _by_role({role: each for role, each in baseline.items() if role not in {IDLE, OTHERS}}),
        f"{idle / whole:.0%} idle, {others / whole:.0%} others",
        _by_role(line["peak_rss_mib"]),
    )


def _by_role(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{role} {figure:,.0f}" for role, figure in figures.items() if figure >= 1)
