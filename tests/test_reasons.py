"""Every reason that the contract promises is provoked, or at least expected, by some test."""

import re
from pathlib import Path

import pytest
from zaaz.common.v1.error_reason_pb2 import ErrorReason

TESTS = Path(__file__).parent
PREFIX = "ERROR_REASON_"

UNPROVOKED: dict[str, str] = {}
"""Reasons that no test can provoke yet, and why."""


def promised() -> set[str]:
    """The contract's reasons without their prefix, but for the one that is never sent."""
    return {name.removeprefix(PREFIX) for name in ErrorReason.DESCRIPTOR.values_by_name} - {
        "UNSPECIFIED"
    }


def expected_by_tests() -> set[str]:
    """What stands in a test as "THE_REASON" or Reason.THE_REASON."""
    sources = (path.read_text() for path in TESTS.rglob("test_*.py") if path != Path(__file__))
    named = re.compile(r'"([A-Z_]+)"|\bReason\.([A-Z_]+)\b')
    return {quoted or member for text in sources for quoted, member in named.findall(text)}


@pytest.mark.parametrize("reason", sorted(promised()))
def test_is_expected_by_some_test(reason: str) -> None:
    assert (reason in expected_by_tests()) != (reason in UNPROVOKED)


def test_exceptions_are_reasons() -> None:
    assert UNPROVOKED.keys() <= promised()
