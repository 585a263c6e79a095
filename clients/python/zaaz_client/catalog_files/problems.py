"""What is wrong with a file, and where."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

MAX_PROBLEMS: Final = 20
"""More are not told: they often come from the first ones."""


class Place(NamedTuple):
    """Where something stands in a file, from 1."""

    line: int
    column: int


def place_of(node: Any) -> Place:
    """Where a node of YAML begins."""
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


class CatalogFileError(Exception):
    """A file is no catalog; `problems` say what is wrong, each with its line and column."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Problems:
    """What was found so far in the file of this name."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: list[tuple[Place, str]] = []

    def add(self, node: Any, text: str) -> None:
        """Something is wrong at this node."""
        self._found.append((place_of(node), text))

    def conclude(self) -> None:
        """Raise CatalogFileError if anything was wrong."""
        if not self._found:
            return
        told = [
            f"{self._file}:{place.line}:{place.column}: {text}"
            for place, text in sorted(self._found)[:MAX_PROBLEMS]
        ]
        hidden = len(self._found) - len(told)
        raise CatalogFileError([*told, *([f"and {hidden:,} more"] if hidden else [])])


def unknown(what: str, given: str, known: Iterable[str]) -> str:
    """That there is no such thing, and what may have been meant."""
    choices = list(known)
    near = difflib.get_close_matches(given, choices, n=1)
    hint = f"; is {near[0]!r} meant?" if near else f"; there are {', '.join(choices)}"
    return f"unknown {what} {given!r}" + hint
