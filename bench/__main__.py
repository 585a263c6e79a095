"""`python -m bench [NAME...]`: a JSON line per figure on stdout, progress and a table on stderr."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import orjson

from bench.figures import FIGURES, take_figure
from bench.machine import describe
from bench.measures import MEASURES, take_measure
from bench.processes import BenchError
from bench.results import keep, table
from bench.setting import Plan, tell

PAIRS = 5


def main() -> int:
    """The exit code: 1 when a figure could not be taken. A figure below its aim is no failure."""
    parser = _parser()
    asked = parser.parse_args()
    names = [one.name for one in (*FIGURES, *MEASURES)]
    unknown = set(asked.names) - set(names)
    if unknown:
        parser.error(f"no figure is called {', '.join(sorted(unknown))}; there are {names}")
    if asked.record and (asked.write or len(asked.names) != 1):
        parser.error("--record takes one NAME, and what it slowed down is not to be kept")
    return asyncio.run(_take(asked))


async def _take(asked: argparse.Namespace) -> int:
    machine, plan = describe(), Plan(asked.pairs, asked.scale, asked.record)
    if plan.scale != 1:
        machine += f", {plan.scale:g} of the work"
    figures = [figure for figure in FIGURES if not asked.names or figure.name in asked.names]
    measures = [each for each in MEASURES if not asked.names or each.name in asked.names]
    lines = [await _try(take_figure(figure, plan)) for figure in figures]
    measured = [await _try(take_measure(measure, plan)) for measure in measures]
    taken = [line for line in lines if line], [line for line in measured if line]
    print(f"\n{table(*taken)}", file=sys.stderr)
    if asked.write:
        keep(*taken, machine)
    return 0 if all((*lines, *measured)) else 1


async def _try(taking: Awaitable[dict[str, Any]]) -> dict[str, Any] | None:
    """What was taken, having said it; None, having said why, where it could not be: others can."""
    try:
        line = await taking
    except BenchError as error:
        tell("\n".join((str(error), *getattr(error, "__notes__", ()))))
        return None
    print(orjson.dumps(line).decode(), flush=True)
    return line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add(
        "names", nargs="*", metavar="NAME", help=" ".join(one.name for one in (*FIGURES, *MEASURES))
    )
    add("--pairs", type=int, default=PAIRS, help=f"runs of each side (default: {PAIRS})")
    add("--scale", type=float, default=1.0, help="multiplies the operations of a run")
    add("--write", action="store_true", help="keep the run in bench/RESULTS.md")
    add("--record", type=Path, metavar="FILE", help="py-spy on the server: .svg, else folded")
    return parser


if __name__ == "__main__":
    sys.exit(main())
