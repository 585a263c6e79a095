"""Rows of other domains that change in the transaction that moves the credits, or not at all."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Document = dict[str, Any]


class RowKey(NamedTuple):
    """A row by its collection and its `_id`."""

    collection: str
    id: Any


Rows = Mapping[RowKey, Document | None]
"""Rows as they are stored; None: there is none."""


class Rider(NamedTuple):
    """What else an operation changes.

    `change(rows, now_ms)` is given the rows under `keys` and returns those that are to be
    otherwise, whole, and new ones. It is pure: it may run several times. A DomainError refuses
    the operation as well. A row that is there is written under its `version` and `guard`
    as they were read, and its guard is counted up.
    """

    keys: tuple[RowKey, ...]
    change: Callable[[Rows, int], Mapping[RowKey, Document]]
