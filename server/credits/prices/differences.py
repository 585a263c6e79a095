"""How models that are here differ from a published list, and what would make them like it. Pure.

A model of the list that is not here is new, with all its versions. One that is here
is compared at the time from which new prices are to be in force, and whenever later
versions of the list begin. What the list does not have is left alone, and so is a
model that was deleted here: to have it back is a decision for a person.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from server.credits.prices.documents import read_prices
from server.credits.prices.model import EPOCH_MS, ModelPrices, ModelVersion
from server.credits.prices.seed import SeedModel
from server.credits.prices.timeline import Timeline
from server.resources.fields import millis
from server.resources.model import Document


class Changed(NamedTuple):
    """A model that is here, and the prices it lacks, in the order of their times."""

    row: Document
    versions: tuple[ModelVersion, ...]


class Difference(NamedTuple):
    """A model of the list that is not here, or has other prices from a time on."""

    model: SeedModel
    start_ms: int
    before: ModelPrices | None
    after: ModelPrices


class Comparison(NamedTuple):
    """What was found. `differences` are in the order of the models' values."""

    added: tuple[SeedModel, ...]
    changed: tuple[Changed, ...]
    differences: tuple[Difference, ...]
    unchanged: int


def compare(
    listed: Iterable[SeedModel], rows: Sequence[Document], providers: Collection[str], at_ms: int
) -> Comparison:
    """The models listed, of these providers or all, beside the rows that are here.

    `rows` are live and deleted ones; `at_ms`: from when new prices are in force.
    """
    live = {row["value"]: row for row in rows if not row["is_deleted"]}
    gone = {row["value"] for row in rows} - set(live)
    added: list[SeedModel] = []
    changed: list[Changed] = []
    differences: list[Difference] = []
    unchanged = 0
    for model in listed:
        other = providers and model.provider not in providers
        if other or model.value in gone or not model.versions:
            continue
        row = live.get(model.value)
        found = _new(model, at_ms) if row is None else tuple(_differences(model, row, at_ms))
        differences += found
        if row is None:
            added.append(model)
        elif found:
            lacking = (ModelVersion(one.start_ms, one.after) for one in found)
            changed.append(Changed(row, tuple(lacking)))
        else:
            unchanged += 1
    return Comparison(tuple(added), tuple(changed), tuple(differences), unchanged)


def begun_anew(
    listed: Iterable[SeedModel], ended: Collection[str], at_ms: int
) -> Iterator[SeedModel]:
    """The models listed; those whose value `ended` here once, with their versions from then on.

    What was billed by a row that is gone stays as it was.
    """
    for model in listed:
        yield _from(model, at_ms) if model.value in ended else model


def _from(model: SeedModel, at_ms: int) -> SeedModel:
    later = [version for version in model.versions if version.effective_time_ms > at_ms]
    current = _listed(model).at(at_ms)
    versions = later if current is None else [ModelVersion(at_ms, current), *later]
    return replace(model, versions=tuple(versions))


def _new(model: SeedModel, at_ms: int) -> tuple[Difference]:
    priced = [version for version in model.versions if version.prices is not None]
    begun = [version for version in priced if version.effective_time_ms <= at_ms]
    shown = begun[-1] if begun else priced[0]
    if shown.prices is None:
        raise ValueError("a listed model has a price")
    start_ms = model.versions[0].effective_time_ms
    return (Difference(model, start_ms, None, shown.prices),)


def _differences(model: SeedModel, row: Document, at_ms: int) -> Iterable[Difference]:
    theirs, ours = _listed(model), _here(row)
    later = [start for start in theirs.starts if start > at_ms]
    for start in (at_ms, *later):
        after, before = theirs.at(start), ours.at(start)
        if after is not None and after != before:
            ours.put(start, after)
            yield Difference(model, start, before, after)


def _listed(model: SeedModel) -> Timeline[ModelPrices | None]:
    timeline: Timeline[ModelPrices | None] = Timeline()
    for version in model.versions:
        timeline.put(version.effective_time_ms, version.prices)
    return timeline


def _here(row: Mapping[str, object]) -> Timeline[ModelPrices | None]:
    """What the row's prices are and will be."""
    timeline: Timeline[ModelPrices | None] = Timeline()
    document: Document = dict(row)
    timeline.put(EPOCH_MS, read_prices(document.get("prices")))
    for item in document.get("scheduled", ()):
        if "prices" in item["fields"]:
            timeline.put(millis(item["effective_time"]), read_prices(item["fields"]["prices"]))
    return timeline
