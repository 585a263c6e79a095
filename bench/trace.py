"""Token counts of real LLM requests."""

import csv
from collections.abc import Iterator
from functools import cache
from itertools import cycle
from pathlib import Path

TRACE = Path(__file__).parent.parent / "tests" / "data" / "azure_llm_trace_conv.csv"


@cache
def _tokens() -> tuple[tuple[int, int], ...]:
    with TRACE.open(newline="") as file:
        rows = csv.DictReader(file)
        return tuple((int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in rows)


def token_counts() -> Iterator[tuple[int, int]]:
    """Input and output tokens, over and over."""
    return cycle(_tokens())
