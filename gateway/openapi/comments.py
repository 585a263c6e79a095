"""What stands above the names of the contract in its .proto files.

`make protos` writes it down here, as stubs carry no comments.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from zaaz.common.v1.error_reason_pb2 import ErrorReason

FOLDER: Final = Path(__file__).parent / "comments"

_REASON_PREFIX: Final = "ERROR_REASON_"
_ERRORS: Final = re.compile(r"(?:^|\n)Errors\b[^:]*:")
_METADATA: Final = re.compile(r"\s*\{[^{}]*\}$")
_NAME: Final = re.compile(r"\b[A-Z][A-Z0-9_]{2,}\b")

REASONS: Final[tuple[str, ...]] = tuple(
    name.removeprefix(_REASON_PREFIX)
    for name in ErrorReason.DESCRIPTOR.values_by_name
    if not name.endswith("_UNSPECIFIED")
)
"""Every ErrorReason without its prefix."""

_KNOWN: Final = frozenset(REASONS)


class Comments:
    """Comments by the full names of what they are about."""

    def __init__(self, by_name: Mapping[str, str]) -> None:
        self._by_name = by_name

    def of(self, full_name: str) -> str:
        """As Markdown, without the list of errors; "" where there is none."""
        text = self._by_name.get(full_name, "")
        found = _ERRORS.search(text)
        return _flowing(text[: found.start()] if found else text)

    def reasons(self, method: str) -> list[str]:
        """The reasons that a method says it refuses with."""
        text = self._by_name.get(method, "")
        found = _ERRORS.search(text)
        names = _NAME.findall(text[found.end() :]) if found else []
        return [name for name in dict.fromkeys(names) if name in _KNOWN]

    def of_reason(self, reason: str) -> str:
        """What a reason means, without the example of its metadata."""
        text = self.of(f"{ErrorReason.DESCRIPTOR.full_name}.{_REASON_PREFIX}{reason}")
        return _METADATA.sub("", text)


def load_comments() -> Comments:
    """All that `make protos` has written."""
    by_name: dict[str, str] = {}
    for path in sorted(FOLDER.rglob("*.json")):
        by_name |= json.loads(path.read_text(encoding="utf-8"))
    return Comments(by_name)


def _flowing(text: str) -> str:
    """Paragraphs instead of lines."""
    paragraphs = (part.replace("\n", " ") for part in text.strip().split("\n\n"))
    return "\n\n".join(paragraphs)
