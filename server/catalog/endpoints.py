"""What is known of endpoints without asking the database: an immutable book.

Of the present: what an endpoint may do and keep. Of all times: its fixed credits, in
micro-credits per use. Times are milliseconds since the epoch.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

from bson import ObjectId

MAX_DEPTH = 16
"""Features from the top of the tree to its lowest one, both counted."""


class WordLimit(NamedTuple):
    """The most words of a request, by what its user pays. Zero: any number."""

    free: int = 0
    paid: int = 0


class FeatureNode(NamedTuple):
    """A feature as the tree needs it."""

    value: str
    parent_id: ObjectId | None
    is_active: bool
    max_words: WordLimit | None


class EndpointRow(NamedTuple):
    """A live endpoint. `max_words` None: its feature's count."""

    id: ObjectId
    value: str
    feature_id: ObjectId
    is_active: bool
    max_words: WordLimit | None
    captured_parts: frozenset[int]
    method: str
    endpoint: str


class EndpointVersion(NamedTuple):
    """A history row. `credits_micros` None: from then on it has no price.

    `ends`: the endpoint was deleted by it, and with it all that was to begin later.
    """

    id: ObjectId
    endpoint_id: ObjectId
    value: str
    effective_ms: int
    credits_micros: int | None
    ends: bool


class Endpoint(NamedTuple):
    """A live endpoint, as it is now.

    `inactive_feature` is the value of the nearest feature that is switched off, its own
    or one above ("": none). Word limits are its own, or else its feature's (0: any number).
    `method` is as in HTTP. `feature` is the value of its feature; `lineage` has the ids of
    that and of all above, and `is_packaged` says that a package which is sold has one of them.
    """

    id: ObjectId
    value: str
    is_active: bool
    inactive_feature: str
    max_words_free: int
    max_words_paid: int
    captured_parts: frozenset[int]
    method: str
    endpoint: str
    feature_id: ObjectId
    feature: str
    lineage: frozenset[ObjectId]
    is_packaged: bool


class _Family(NamedTuple):
    """What an endpoint has of its feature and of those above it."""

    feature: str
    inactive: str
    lineage: frozenset[ObjectId]
    is_packaged: bool


class _Timeline(NamedTuple):
    """What is in force when: `versions[bisect_right(times, time)]`, None before the first."""

    times: tuple[int, ...]
    versions: tuple[EndpointVersion | None, ...]


_NEVER = _Timeline((), (None,))


class EndpointBook:
    """All endpoints by their value. `versions` come in the order in which they were written.

    `packaged` are the features that packages which are sold have by themselves.
    """

    __slots__ = ("_live", "_timelines")

    def __init__(
        self,
        features: Mapping[ObjectId, FeatureNode],
        endpoints: Iterable[EndpointRow],
        versions: Iterable[EndpointVersion],
        packaged: Set[ObjectId] = frozenset(),
    ) -> None:
        rows = list(endpoints)
        # One for all endpoints of a feature: they share its lineage.
        families = {
            feature_id: _family(feature_id, features, packaged)
            for feature_id in {row.feature_id for row in rows}
        }
        self._live = {
            row.value: _endpoint(row, features.get(row.feature_id), families[row.feature_id])
            for row in rows
        }
        self._timelines = _timelines(versions)

    def find(self, value: str) -> Endpoint | None:
        """The live endpoint of this value."""
        return self._live.get(value)

    def credits_at(self, value: str, time_ms: int) -> int | None:
        """What a use cost beside its model, in micro-credits; None: none was in force."""
        times, versions = self._timelines.get(value, _NEVER)
        version = versions[bisect_right(times, time_ms)]
        return None if version is None else version.credits_micros

    def version_at(self, value: str, time_ms: int) -> ObjectId | None:
        """The id of the history row that was in force."""
        version = self._version(value, time_ms)
        return None if version is None else version.id

    def id_at(self, value: str, time_ms: int) -> ObjectId | None:
        """The id of the endpoint that had this value, also of one that is gone."""
        version = self._version(value, time_ms)
        return None if version is None else version.endpoint_id

    def _version(self, value: str, time_ms: int) -> EndpointVersion | None:
        times, versions = self._timelines.get(value, _NEVER)
        return versions[bisect_right(times, time_ms)]


def _endpoint(row: EndpointRow, feature: FeatureNode | None, family: _Family) -> Endpoint:
    limits = row.max_words or (feature and feature.max_words) or WordLimit()
    return Endpoint(
        row.id,
        row.value,
        row.is_active,
        family.inactive,
        limits.free,
        limits.paid,
        row.captured_parts,
        row.method,
        row.endpoint,
        row.feature_id,
        family.feature,
        family.lineage,
        family.is_packaged,
    )


def _family(
    feature_id: ObjectId, features: Mapping[ObjectId, FeatureNode], packaged: Set[ObjectId]
) -> _Family:
    lineage = [feature_id]
    known: list[FeatureNode] = []
    while len(known) < MAX_DEPTH and (feature := features.get(lineage[-1])) is not None:
        known.append(feature)
        if feature.parent_id is None:
            break
        lineage.append(feature.parent_id)
    return _Family(
        known[0].value if known else "",
        next((feature.value for feature in known if not feature.is_active), ""),
        frozenset(lineage),
        not packaged.isdisjoint(lineage),
    )


def _timelines(versions: Iterable[EndpointVersion]) -> dict[str, _Timeline]:
    # Endpoints of one value in the order in which they came: a value is free again once its
    # endpoint is deleted.
    by_value: dict[str, dict[ObjectId, dict[int, EndpointVersion]]] = {}
    for version in versions:
        begun = by_value.setdefault(version.value, {}).setdefault(version.endpoint_id, {})
        if version.ends:
            for time_ms in [time for time in begun if time >= version.effective_ms]:
                del begun[time_ms]
        begun[version.effective_ms] = version
    return {value: _merged(list(owners.values())) for value, owners in by_value.items()}


def _merged(owners: list[dict[int, EndpointVersion]]) -> _Timeline:
    """At every time the version of the latest endpoint that has one in force."""
    times = sorted({time for begun in owners for time in begun})
    current: list[EndpointVersion | None] = [None] * len(owners)
    merged: list[EndpointVersion | None] = [None]
    for time_ms in times:
        for place, begun in enumerate(owners):
            version = begun.get(time_ms)
            if version is not None:
                current[place] = None if version.credits_micros is None else version
        merged.append(next((version for version in reversed(current) if version), None))
    return _Timeline(tuple(times), tuple(merged))
