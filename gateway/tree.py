"""Which target a path leads to: a tree of segments, made once.

Literal segments win over variables, at every segment from the left; a verb that
the better match does not have is looked for in the next one, so that `DELETE
/api/packages/bulk` and `GET /api/packages/{id}` do not hide each other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from gateway.templates import ONE, REST, Template

MAX_SEGMENTS: Final = 32
"""No path is longer."""

_T = TypeVar("_T")


class RouteConflictError(ValueError):
    """Two routes of one verb match the same paths."""


class _Node(Generic[_T]):
    __slots__ = ("ends", "literals", "one", "rest")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[_T]] = {}
        self.one: _Node[_T] | None = None
        self.rest: _Node[_T] | None = None
        self.ends: dict[str, dict[str, _T]] = {}
        """By the verb behind the colon, then by HTTP's verb."""


@dataclass(frozen=True, slots=True)
class Found(Generic[_T]):
    """What stands at a path; `target` is None if it has no such verb, `verbs` are all it has.

    `has_suffix`: the last segment ended in a verb behind a colon, which is part of no variable.
    """

    target: _T | None
    verbs: frozenset[str]
    suffix: str = ""


class Tree(Generic[_T]):
    """Targets by template and verb."""

    def __init__(self) -> None:
        self._root: _Node[_T] = _Node()

    def add(self, template: Template, verb: str, target: _T) -> None:
        """RouteConflictError if the same paths lead to another target already."""
        node = self._root
        for segment in template.segments:
            node = _step(node, segment)
        verbs = node.ends.setdefault(template.verb, {})
        if verb in verbs:
            raise RouteConflictError(f"{verb} /{'/'.join(template.segments)}")
        verbs[verb] = target

    def find(self, segments: Sequence[str], verb: str) -> Found[_T] | None:
        """What stands at the path of these decoded segments; None if nothing does."""
        if len(segments) > MAX_SEGMENTS:
            return None
        others: set[str] = set()
        for suffix, shortened in _readings(segments):
            for node in _matches(self._root, shortened, 0):
                verbs = node.ends.get(suffix)
                if verbs is None:
                    continue
                if verb in verbs:
                    return Found(verbs[verb], frozenset(verbs), suffix)
                others.update(verbs)
        return Found(None, frozenset(others)) if others else None


def _step(node: _Node[_T], segment: str) -> _Node[_T]:
    if segment == ONE:
        node.one = node.one or _Node()
        return node.one
    if segment == REST:
        node.rest = node.rest or _Node()
        return node.rest
    return node.literals.setdefault(segment, _Node())


def _readings(segments: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """With what follows the last colon as a verb, and with it as part of the segment."""
    head, colon, suffix = segments[-1].rpartition(":")
    if colon and head and suffix:
        yield suffix, [*segments[:-1], head]
    yield "", segments


def _matches(node: _Node[_T], segments: Sequence[str], index: int) -> Iterator[_Node[_T]]:
    """The nodes at which `segments` end, the best match first."""
    if index == len(segments):
        if node.ends:
            yield node
        if node.rest is not None:
            yield node.rest
        return
    segment = segments[index]
    literal = node.literals.get(segment)
    if literal is not None:
        yield from _matches(literal, segments, index + 1)
    if node.one is not None and segment:
        yield from _matches(node.one, segments, index + 1)
    if node.rest is not None and all(segments[index:]):
        yield node.rest
