"""The bench as it is called, on two cheap figures and next to no work."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).parents[2]
NAMES = ("usage_40", "list_offers")
"""One by the stream, whose baseline is a run behind, and one by plain calls."""
BOUND_SECONDS = 120.0


async def test_each_figure_says_its_ratio_and_what_it_cost() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench", *NAMES, "--scale", "0.002", "--pairs", "1"),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), BOUND_SECONDS)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, err.decode()
    lines = [orjson.loads(line) for line in out.splitlines()]
    assert sorted(line["name"] for line in lines) == sorted(NAMES)
    for line in lines:
        _look_at(line)
    assert err.decode().count("\n| ") == 2 + len(NAMES)  # a head, its rule, and a row each


def _look_at(line: dict[str, Any]) -> None:
    lowest, highest = line["spread"]
    assert 0 < lowest <= line["ratio"] <= highest
    assert line["runs"] == 1
    assert line["scale"] == "quick x 0.002"
    for side in ("ours", "baseline"):
        cpu = line[side]["cpu_micros"]
        assert {"server", "mongod", "client", "idle", "others"} <= set(cpu)
        assert all(micros >= 0 for micros in cpu.values())
    assert line["peak_rss_mib"]["server"] > 1
    assert line["peak_rss_mib"]["mongod"] > 1
