"""Every reason that the ledger and the services over it give is expected by some test."""

import re
from pathlib import Path

import pytest

from server.kernel.errors import Reason

ROOT = Path(__file__).parents[2]
GIVING = ("server/ledger", "server/credits", "server/wallet", "server/auth", "server/kernel")


def given() -> set[str]:
    """The reasons named where they are raised; the kernel's enum itself does not count."""
    found: set[str] = set()
    for folder in GIVING:
        for path in (ROOT / folder).rglob("*.py"):
            found |= set(re.findall(r"\bReason\.([A-Z_]+)", path.read_text()))
    return found


def expected() -> str:
    """All that the other tests say."""
    files = (path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__))
    return "\n".join(path.read_text() for path in files)


TESTS = expected()


@pytest.mark.parametrize("reason", sorted(given()))
def test_is_expected_somewhere(reason: str) -> None:
    assert reason in Reason.__members__
    assert re.search(rf"\"{reason}\"|Reason\.{reason}\b", TESTS)
