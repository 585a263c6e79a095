"""bench/RESULTS.md: every run that was worth keeping, newest first, under what a person wrote."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import IDLE, OTHERS, commit

RESULTS = Path(__file__).parent / "RESULTS.md"
RUNS_MARK = "<!-- python -m bench --write puts the newest run below this line -->\n"
_HEADINGS = (
    *("figure", "ratio", "aim", "lowest to highest", "ours/s", "baseline/s"),
    *("p50 ms", "p99 ms", "CPU µs an operation", "not used", "peak MiB"),
)


def keep(
    lines: Sequence[Mapping[str, Any]], measured: Sequence[Mapping[str, Any]], machine: str
) -> None:
    """Adds a run's figures and measures to the file; all else in it stays as it is."""
    text = RESULTS.read_text()
    before, mark, after = text.partition(RUNS_MARK)
    if not mark:
        raise ValueError(f"{RESULTS.name} has lost its line {RUNS_MARK.strip()}")
    RESULTS.write_text(f"{before}{mark}\n{_section(lines, measured, machine)}{after}")


def _section(
    lines: Sequence[Mapping[str, Any]], measured: Sequence[Mapping[str, Any]], machine: str
) -> str:
    today = datetime.now(UTC).date().isoformat()
    parts = [f"### {today}, commit {commit()}"]
    pairs = ", ".join(sorted({str(line["runs"]) for line in lines}))
    parts.append(f"{machine}; pairs of each: {pairs}." if lines else f"{machine}.")
    if lines:
        rows = [_HEADINGS, ("---",) * len(_HEADINGS), *(_row(line) for line in lines)]
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    if measured:
        parts.append("\n".join(map(_measured, measured)))
    return "\n\n".join(parts) + "\n"


def _measured(line: Mapping[str, Any]) -> str:
    rest = {
        name: text
        for name, text in line.items()
        if name not in {"name", "what", "aim", "value", "unit"}
    }
    details = ", ".join(f"{name} {text}" for name, text in rest.items())
    head = f"- {line['name']}, {line['what']}: **{line['value']:,} {line['unit']}**"
    return f"{head} (aim: {line['aim']}; {details})"


def _row(line: Mapping[str, Any]) -> tuple[str, ...]:
    ours, (lowest, highest) = line["ours"], line["spread"]
    cpu = dict(ours["cpu_micros"])
    idle, others = cpu.pop(IDLE), cpu.pop(OTHERS)
    whole = sum((*cpu.values(), idle, others)) or 1.0
    return (
        line["name"],
        f"**{line['ratio']:.2f}**",
        f"{line['aim']:.2f}",
        f"{lowest:.2f} to {highest:.2f}",
        f"{line['ours_per_second']:,}",
        f"{line['baseline_per_second']:,}",
        f"{ours['p50_ms']:.1f}",
        f"{ours['p99_ms']:.1f}",
        _by_role(cpu),
        f"{idle / whole:.0%} idle, {others / whole:.0%} others",
        _by_role(line["peak_rss_mib"]),
    )


def _by_role(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{role} {figure:,.0f}" for role, figure in figures.items() if figure >= 1)
