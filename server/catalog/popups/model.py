"""Which popups a user is to see now. Times are milliseconds since the epoch."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from bson import ObjectId

from server.catalog.endpoints import MAX_DEPTH
from server.kernel.clock import DAY_MS

DEFAULT_HIDDEN_MS: Final = DAY_MS
"""For how long a dismissal hides what comes again, unless it says until when."""

MAX_HIDDEN_MS: Final = 366 * DAY_MS
"""A year, be it a leap year."""


class Popup(NamedTuple):
    """A live, active popup, as far as choosing goes."""

    id: ObjectId
    feature_id: ObjectId
    comes_again: bool


class Feature(NamedTuple):
    """A feature as the tree needs it."""

    parent_id: ObjectId | None
    is_active: bool


def is_switched_on(feature_id: ObjectId | None, features: Mapping[ObjectId, Feature]) -> bool:
    """Whether the feature is there and active, with all that are above it."""
    # Read one after another while others move them, they may even seem to form a circle.
    for _ in range(MAX_DEPTH):
        if feature_id is None:
            return True
        feature = features.get(feature_id)
        if feature is None or not feature.is_active:
            return False
        feature_id = feature.parent_id
    return feature_id is None


def is_hidden(popup: Popup, dismissed: Mapping[ObjectId, int], now_ms: int) -> bool:
    """Whether its user has dismissed it. `dismissed`: until when, by popup."""
    until_ms = dismissed.get(popup.id)
    return until_ms is not None and (not popup.comes_again or until_ms > now_ms)
