"""`python -m bench [NAME...]`: a JSON line per figure on stdout, progress and a table on stderr."""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from bench.failures import explain
from bench.figures import FIGURES, take_figure
from bench.machine import describe
from bench.measures import MEASURES, take_measure
from bench.results import Taken, keep, table
from bench.setting import Plan, tell

QUICK_PAIRS, FULL_PAIRS = 3, 6
"""Of an even number as many begin with either side; the quick scale gives that up for its time."""
LONGEST_SECONDS = 1_800.0
"""For one figure: one that hangs would keep the others from being taken."""

Take = Callable[[], Awaitable[dict[str, Any]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 when a figure could not be taken. A figure below its aim is no failure."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    names = [one.name for one in (*FIGURES, *MEASURES)]
    unknown = set(asked.names) - set(names)
    if unknown:
        parser.error(f"no figure is called {', '.join(sorted(unknown))}; there are {names}")
    if asked.record and (asked.write or len(asked.names) != 1):
        parser.error("--record takes one NAME, and what it slowed down is not to be kept")
    try:
        return asyncio.run(_take(asked))
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM


async def _take(asked: argparse.Namespace) -> int:
    pairs = asked.pairs or (FULL_PAIRS if asked.full else QUICK_PAIRS)
    machine, plan = describe(), Plan(pairs, asked.scale, asked.full, asked.record)
    tell(f"{plan.told} scale, {pairs} pairs of each")
    taken = Taken()
    _end_in_order()
    try:
        for figure in FIGURES:
            if not asked.names or figure.name in asked.names:
                await _try(figure.name, partial(take_figure, figure, plan), taken.figures, taken)
        for measure in MEASURES:
            if not asked.names or measure.name in asked.names:
                await _try(
                    measure.name, partial(take_measure, measure, plan), taken.measures, taken
                )
    finally:
        # Also when it is interrupted: what was taken until then holds.
        print(f"\n{table(taken)}", file=sys.stderr)
        if asked.write and (taken.figures or taken.measures):
            keep(taken, machine, plan.told)
    return 1 if taken.failed else 0


def _end_in_order() -> None:
    """Has SIGTERM interrupt this task as Ctrl-C does: what it started is to end with it."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


async def _try(name: str, take: Take, lines: list[dict[str, Any]], taken: Taken) -> None:
    """Says what was taken, or why it was not: however one figure fails, the others can be had."""
    began = time.perf_counter()
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            line = await take()
    except Exception as error:  # noqa: BLE001
        why = explain(error)
        tell(f"{name} could not be taken: {why}")
        taken.failed[name] = why.splitlines()[0]
        return
    print(orjson.dumps(line).decode(), flush=True)
    tell(f"{name} taken in {time.perf_counter() - began:.0f} s")
    lines.append(line)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add(
        "names", nargs="*", metavar="NAME", help=" ".join(one.name for one in (*FIGURES, *MEASURES))
    )
    add("--full", action="store_true", help="the figures of record, which take half an hour")
    add("--pairs", type=int, help=f"runs of each side (default: {QUICK_PAIRS}, full {FULL_PAIRS})")
    add("--scale", type=float, default=1.0, help="multiplies the operations of a run")
    add("--write", action="store_true", help="keep the run in bench/RESULTS.md")
    add("--record", type=Path, metavar="FILE", help="py-spy on the server: .svg, else folded")
    return parser


if __name__ == "__main__":
    sys.exit(main())
