"""What tests of LiteLLM ask, and what they make of it."""

from typing import Any

import litellm
import pytest
from zaaz_client.adapters import UnknownUsage, UsageFigures

UNTYPED: Any = litellm
CLAUDE = "anthropic/claude-sonnet-5-5"
FULL = UsageFigures(input_tokens=1_000, output_tokens=500)
CACHED = UsageFigures(
    input_tokens=1_000, output_tokens=500, cache_read_tokens=300, cache_write_tokens=200
)

QUIET = [
    pytest.mark.usefixtures("quiet"),
    pytest.mark.filterwarnings("ignore:Item .* using the `ReadOnly` qualifier"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute on the instance"),
]
"""The warnings are Pydantic's, of what LiteLLM does."""


def some(unknown: UnknownUsage) -> UsageFigures:
    return UsageFigures(input_tokens=7, output_tokens=len(unknown.text))
