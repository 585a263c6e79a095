"""What is in force when: history rows, in the order in which they were written, as versions.

A version takes effect at its time beside those that are set for other times, and
replaces one of the same time. Three things also end what was to begin at or after
them: the deletion of a row, a namesake that takes its place, and the activation of
a setting. Pure; times in milliseconds.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar

from bson import ObjectId

from server.credits.prices.model import (
    EPOCH_MS,
    CreditPriceVersion,
    ModelPrices,
    ModelVersion,
    Prices,
    ProfitVersion,
)

T = TypeVar("T")


class ModelRow(NamedTuple):
    """What a history row of a model says. `ends`: it was deleted."""

    history_id: ObjectId
    ai_model_id: ObjectId
    value: str
    start_ms: int
    prices: ModelPrices | None
    ends: bool = False
    is_active: bool = True


class SettingRow(NamedTuple):
    """What a history row of a billing setting says. `is_active`: it was the active one."""

    history_id: ObjectId
    billing_setting_id: ObjectId
    credit_price_micros: int
    applied_ms: int
    is_active: bool
    is_initial: bool


class ProfitRow(NamedTuple):
    """What a history row of a margin says. `ai_model_id` None: for all; `ends`: it was deleted."""

    history_id: ObjectId
    credits_profit_id: ObjectId
    ai_model_id: ObjectId | None
    start_ms: int
    profit_ppm: int | None
    is_active: bool
    ends: bool = False


class Timeline(Generic[T]):
    """Values by the time from which they are in force."""

    __slots__ = ("starts", "values")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.values: list[T] = []

    def put(self, start_ms: int, value: T) -> None:
        """Beside what begins at other times, instead of what begins then."""
        place = bisect_left(self.starts, start_ms)
        if place < len(self.starts) and self.starts[place] == start_ms:
            self.values[place] = value
        else:
            self.starts.insert(place, start_ms)
            self.values.insert(place, value)

    def cut(self, start_ms: int, value: T) -> None:
        """Instead of everything that begins then or later."""
        place = bisect_left(self.starts, start_ms)
        del self.starts[place:], self.values[place:]
        self.starts.append(start_ms)
        self.values.append(value)

    def at(self, time_ms: int) -> T | None:
        """What is in force then; None before the first."""
        place = bisect_right(self.starts, time_ms)
        return self.values[place - 1] if place else None


class Histories:
    """All history rows so far. More are added as they are written; nothing is read twice."""

    def __init__(self) -> None:
        self._models: defaultdict[str, _Model] = defaultdict(_Model)
        self._versions: dict[str, tuple[ModelVersion, ...]] = {}
        self._credit_price = _CreditPrice()
        self._margins: defaultdict[ObjectId | None, _Margin] = defaultdict(_Margin)

    def add(
        self,
        models: Iterable[ModelRow],
        settings: Iterable[SettingRow],
        profits: Iterable[ProfitRow],
    ) -> None:
        """Rows that were written after those that are here, each kind in the order of writing."""
        changed = set()
        for row in models:
            self._models[row.value].add(row)
            changed.add(row.value)
        for value in changed:
            self._versions[value] = self._models[value].versions()
        for setting in settings:
            self._credit_price.add(setting)
        for profit in profits:
            self._margins[profit.ai_model_id].add(profit)

    def prices(self) -> Prices:
        """Everything that was, is and is to be in force."""
        margins = {model_id: margin.versions() for model_id, margin in self._margins.items()}
        own = {
            value: _own_margin(model.timeline, margins)
            for value, model in self._models.items()
            if not margins.keys().isdisjoint(model.holders)
        }
        return Prices(
            models=dict(self._versions),
            credit_prices=self._credit_price.versions(),
            profits=margins.get(None, ()),
            model_profits=own,
            inactive=frozenset(v for v, model in self._models.items() if not model.is_active),
        )


def fold(
    models: Iterable[ModelRow], settings: Iterable[SettingRow], profits: Iterable[ProfitRow]
) -> Prices:
    """What these rows and no others say."""
    histories = Histories()
    histories.add(models, settings, profits)
    return histories.prices()


class _Model:
    """The rows that had a value in turn."""

    def __init__(self) -> None:
        self.timeline: Timeline[ModelRow] = Timeline()
        self.holders: set[ObjectId] = set()
        self.is_active = True
        self._last: ModelRow | None = None

    def add(self, row: ModelRow) -> None:
        last, self._last = self._last, row
        self.holders.add(row.ai_model_id)
        self.is_active = row.is_active
        if row.ends or last is None or last.ai_model_id != row.ai_model_id:
            self.timeline.cut(row.start_ms, row)
        else:
            self.timeline.put(row.start_ms, row)

    def versions(self) -> tuple[ModelVersion, ...]:
        return tuple(
            ModelVersion(row.start_ms, row.prices, row.history_id) for row in self.timeline.values
        )


class _CreditPrice:
    """The activations, and before the first of them the initial setting."""

    def __init__(self) -> None:
        self._timeline: Timeline[SettingRow] = Timeline()
        self._initial: SettingRow | None = None
        self._last: SettingRow | None = None

    def add(self, row: SettingRow) -> None:
        if row.is_initial and self._initial is None:
            self._initial = row
        if row.is_active and not _is_same_activation(row, self._last):
            self._timeline.cut(row.applied_ms, row)
            self._last = row

    def versions(self) -> tuple[CreditPriceVersion, ...]:
        starts = self._timeline.starts
        activations = list(zip(starts, self._timeline.values, strict=True))
        if self._initial is not None and not (starts and starts[0] <= EPOCH_MS):
            activations.insert(0, (EPOCH_MS, self._initial))
        return tuple(
            CreditPriceVersion(start, row.credit_price_micros, row.history_id)
            for start, row in activations
        )


def _is_same_activation(row: SettingRow, last: SettingRow | None) -> bool:
    """Whether the active setting was changed in something else, such as its description."""
    return last is not None and (row.billing_setting_id, row.applied_ms) == (
        last.billing_setting_id,
        last.applied_ms,
    )


class _Margin:
    """The margin for one model, or for all: what it comes to, and whether it is applied.

    Only what it comes to can be set for later; whether it is applied holds from
    its row on, for what was set for later too.
    """

    def __init__(self) -> None:
        self._rows: Timeline[ProfitRow] = Timeline()
        self._is_applied: Timeline[bool] = Timeline()
        self._last: ProfitRow | None = None

    def add(self, row: ProfitRow) -> None:
        last, self._last = self._last, row
        if row.ends or last is None or last.credits_profit_id != row.credits_profit_id:
            self._rows.cut(row.start_ms, row)
        else:
            self._rows.put(row.start_ms, row)
        self._is_applied.cut(row.start_ms, row.is_active and not row.ends)

    def versions(self) -> tuple[ProfitVersion, ...]:
        """In the order of their times."""
        starts = sorted({*self._rows.starts, *self._is_applied.starts})
        return tuple(self._version(start) for start in starts)

    def _version(self, start_ms: int) -> ProfitVersion:
        row = self._rows.at(start_ms)
        if row is None or not self._is_applied.at(start_ms):
            return ProfitVersion(start_ms, None)
        return ProfitVersion(start_ms, row.profit_ppm, row.history_id)


_Margins = Mapping[ObjectId | None, tuple[ProfitVersion, ...]]


def _own_margin(models: Timeline[ModelRow], margins: _Margins) -> tuple[ProfitVersion, ...]:
    """The margins of the rows that had a value in turn, each for as long as it had it."""
    turns: Timeline[ProfitVersion] = Timeline()
    ends = [*models.starts[1:], None]
    for start, end, row in zip(models.starts, ends, models.values, strict=True):
        turns.put(start, ProfitVersion(start, None))
        for version in margins.get(row.ai_model_id, ()):
            if end is None or version.effective_time_ms < end:
                begins = max(start, version.effective_time_ms)
                turns.put(begins, version._replace(effective_time_ms=begins))
    return tuple(turns.values)
