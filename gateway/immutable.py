"""Modules that a client may read and never write: the ledger's rows and the histories.

Which they are follows from the contract: a module that has a list and none of
the verbs that change a resource. Those verbs are known there all the same, so
that a client which tries them reads why, and not that it mistyped.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from gateway.refusals import Refusal
from gateway.routes import Route
from gateway.templates import ONE, Template, parse_template
from gateway.tree import Tree

REASON: Final = "LEDGER_IMMUTABLE"
ROOT: Final = "api"

_WRITING: Final = (
    ("POST", ()),
    ("PUT", (ONE,)),
    ("PATCH", (ONE,)),
    ("DELETE", (ONE,)),
    ("DELETE", ("bulk",)),
    ("POST", ("bulk-delete",)),
    ("POST", (ONE, "restore")),
    ("DELETE", (ONE, "permanent")),
)
"""The verbs and paths, below a module, by which resources are changed."""


def immutable_tree(routes: Iterable[Route]) -> Tree[bool]:
    """Where a write would be to what is only read."""
    tree: Tree[bool] = Tree()
    for module in _read_only(routes):
        for verb, below in _WRITING:
            tree.add(Template((ROOT, module, *below), (), ""), verb, True)
    return tree


def is_immutable() -> Refusal:
    """405 for such a write."""
    return Refusal(405, REASON, "these rows are read-only: the server alone writes them")


def _read_only(routes: Iterable[Route]) -> Iterator[str]:
    served: dict[str, set[tuple[str, tuple[str, ...]]]] = defaultdict(set)
    listed = set()
    for route in routes:
        segments = parse_template(route.path).segments
        if len(segments) > 1 and segments[0] == ROOT:
            served[segments[1]].add((route.verb, segments[2:]))
        if len(segments) == _OF_A_MODULE and route.method.name.startswith("List"):
            listed.add(segments[1])
    for module in sorted(listed):
        if served[module].isdisjoint(_WRITING):
            yield module


_OF_A_MODULE: Final = 2
