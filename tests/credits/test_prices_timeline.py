"""What is in force when, against plain statements of the rules."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from bson import ObjectId

from server.credits.prices.model import (
    CreditPriceVersion,
    ModelPrices,
    ModelVersion,
    PriceBook,
    Prices,
    PriceVersionIds,
    ProfitVersion,
    TokenPrices,
)
from server.credits.prices.timeline import (
    Histories,
    ModelRow,
    ProfitRow,
    SettingRow,
    Timeline,
    fold,
)
from server.kernel.errors import DomainError

VALUE = "p/one"
HORIZON = 60
SEQUENCES = 400


def prices(amount: int) -> ModelPrices:
    return ModelPrices(TokenPrices(amount, 0))


def model(start: int, amount: int | None, ai_model_id: ObjectId, *, ends: bool = False) -> ModelRow:
    known = None if amount is None else prices(amount)
    return ModelRow(ObjectId(), ai_model_id, VALUE, start, known, ends)


def in_force(versions: Sequence[Any], time: int) -> Any:
    """The last version that has begun."""
    begun = [version for version in versions if version.effective_time_ms <= time]
    return begun[-1] if begun else None


def survives(rows: Sequence[Any], place: int, start: Any, ends: Any) -> bool:
    """No later row begins at the same time, or ended it before it began."""
    return not any(
        start(later) == start(rows[place]) or (ends(later) and start(later) <= start(rows[place]))
        for later in rows[place + 1 :]
    )


def oracle(rows: Sequence[Any], time: int, start: Any, ends: Any) -> Any:
    """Of the rows that survive and have begun, the one that began last."""
    begun = [
        row
        for place, row in enumerate(rows)
        if start(row) <= time and survives(rows, place, start, ends)
    ]
    return max(begun, key=start, default=None)


@dataclass
class History:
    """Rows as the service would write them: time goes on, and only a Create may look back."""

    random: Random
    now: int = 5
    subject: ObjectId = field(default_factory=ObjectId)
    is_live: bool = False
    ended: int = 0

    def pass_time(self) -> None:
        self.now += self.random.choice([0, 0, 1, 4])

    def start(self) -> int:
        """Of a change: now or later. Of a new row: from the end of its namesake on."""
        if self.is_live:
            return self.now + self.random.choice([0, 0, 1, 2, 7])
        self.is_live = True
        self.subject = ObjectId()
        return self.random.randint(self.ended, self.now)

    def delete(self) -> bool:
        if not self.is_live or self.random.random() < 0.8:
            return False
        self.is_live, self.ended = False, self.now
        return True


@pytest.mark.parametrize("seed", range(SEQUENCES))
def test_models(seed: int) -> None:
    history = History(Random(seed))
    rows: list[ModelRow] = []
    for _ in range(history.random.randint(1, 14)):
        history.pass_time()
        if history.delete():
            rows.append(model(history.now, None, history.subject, ends=True))
        else:
            start = history.start()
            amount = history.random.choice([None, *range(9)])
            rows.append(model(start, amount, history.subject))
    versions = fold(rows, [], []).models[VALUE]
    for time in range(HORIZON):
        expected = oracle(rows, time, lambda row: row.start_ms, lambda row: row.ends)
        found = in_force(versions, time)
        assert (found and found.prices) == (expected and expected.prices), time
        assert (found and found.history_id) == (expected and expected.history_id), time


@pytest.mark.parametrize("seed", range(SEQUENCES // 4))
def test_what_is_added_bit_by_bit_is_the_same(seed: int) -> None:
    random = Random(seed)
    ids = [ObjectId() for _ in range(3)]
    models = [
        model(random.randint(0, 9), random.choice([None, 1, 2]), random.choice(ids))._replace(
            value=random.choice(["p/one", "p/two"]),
            ends=random.random() < 0.2,
            is_active=random.random() < 0.5,
        )
        for _ in range(12)
    ]
    settings = [
        SettingRow(ObjectId(), random.choice(ids), 1, random.randint(0, 9), True, False)
        for _ in range(12)
    ]
    profits = [
        ProfitRow(
            ObjectId(), ObjectId(), random.choice([None, *ids]), random.randint(0, 9), 1, True
        )
        for _ in range(12)
    ]
    histories, book = Histories(), None
    for start in range(0, 12, 3):
        part = slice(start, start + 3)
        histories.add(models[part], settings[part], profits[part])
        book = PriceBook(histories.prices(), book)
    whole = PriceBook(fold(models, settings, profits))
    assert book == whole
    for time in range(11):
        for value in ("p/one", "p/two"):
            assert book is not None
            assert book.versions(value, time) == whole.versions(value, time)
            assert book.is_active(value) == whole.is_active(value)


@pytest.mark.parametrize("seed", range(SEQUENCES))
def test_credit_prices(seed: int) -> None:
    random = Random(seed)
    settings = [(ObjectId(), price) for price in range(1, 5)]
    first = SettingRow(ObjectId(), settings[0][0], 1, 0, random.random() < 0.5, is_initial=True)
    rows, now, activations = [first], 5, [first] if first.is_active else []
    for _ in range(random.randint(1, 10)):
        now += random.choice([0, 1, 4])
        setting_id, price = random.choice(settings)
        applied = now + random.choice([0, 0, 1, 2, 7])
        if activations and random.random() < 0.3:
            # The active one is described anew: nothing begins.
            rows.append(activations[-1]._replace(history_id=ObjectId()))
            continue
        for other, other_price in settings:
            if other != setting_id:
                rows.append(SettingRow(ObjectId(), other, other_price, applied, False, False))
        rows.append(SettingRow(ObjectId(), setting_id, price, applied, True, False))
        last = activations[-1] if activations else None
        if last is None or (last.billing_setting_id, last.applied_ms) != (setting_id, applied):
            activations.append(rows[-1])
    versions = fold([], rows, []).credit_prices
    for time in range(HORIZON):
        expected = oracle(activations, time, lambda row: row.applied_ms, lambda _: True) or first
        found = in_force(versions, time)
        assert found.credit_price_micros == expected.credit_price_micros, time
        assert found.history_id == expected.history_id, time


@pytest.mark.parametrize("ai_model_id", [None, ObjectId()])
@pytest.mark.parametrize("seed", range(SEQUENCES // 2))
def test_margins(seed: int, ai_model_id: ObjectId | None) -> None:
    history = History(Random(seed))
    rows: list[ProfitRow] = []
    applied: list[tuple[int, bool]] = []
    is_active = True
    for _ in range(history.random.randint(1, 14)):
        history.pass_time()
        ends = history.delete()
        start = history.now if ends else history.start()
        if start == history.now and not ends:
            is_active = history.random.random() < 0.7
        amount = None if ends else history.random.randint(0, 9)
        applied.append((start, is_active and not ends))
        subject = history.subject
        rows.append(
            ProfitRow(ObjectId(), subject, ai_model_id, start, amount, applied[-1][1], ends)
        )
    owner = ai_model_id or ObjectId()
    folded = fold([model(0, 1, owner)], [], rows)
    versions = folded.profits if ai_model_id is None else folded.model_profits[VALUE]
    for time in range(HORIZON):
        row = oracle(rows, time, lambda row: row.start_ms, lambda row: row.ends)
        on = oracle(applied, time, lambda row: row[0], lambda _: True)
        found = in_force(versions, time)
        expected = row.profit_ppm if row is not None and on is not None and on[1] else None
        assert (found and found.profit_ppm) == expected, time
        if expected is not None:
            assert found.history_id == row.history_id, time


class TestTimeline:
    def test_is_empty_before_the_first(self) -> None:
        timeline: Timeline[str] = Timeline()
        timeline.put(5, "a")
        assert (timeline.at(4), timeline.at(5), timeline.at(99)) == (None, "a", "a")

    def test_now_does_not_end_what_was_set_for_later(self) -> None:
        ai_model_id = ObjectId()
        rows = [model(0, 1, ai_model_id), model(20, 3, ai_model_id), model(10, 2, ai_model_id)]
        found = fold(rows, [], []).models[VALUE]
        assert [(version.effective_time_ms, version.prices) for version in found] == [
            (0, prices(1)),
            (10, prices(2)),
            (20, prices(3)),
        ]

    def test_a_restored_model_has_prices_from_then_on(self) -> None:
        ai_model_id = ObjectId()
        rows = [
            model(0, 1, ai_model_id),
            model(20, 3, ai_model_id),
            model(10, None, ai_model_id, ends=True),
            model(15, 1, ai_model_id),
        ]
        found = fold(rows, [], []).models[VALUE]
        assert [(version.effective_time_ms, version.prices) for version in found] == [
            (0, prices(1)),
            (10, None),
            (15, prices(1)),
        ]

    def test_activating_now_supersedes_what_was_to_begin(self) -> None:
        first, later, now = (ObjectId() for _ in range(3))
        rows = [
            SettingRow(first, first, 1, 0, is_active=True, is_initial=True),
            SettingRow(later, later, 2, 50, is_active=True, is_initial=False),
            SettingRow(now, now, 3, 20, is_active=True, is_initial=False),
        ]
        assert fold([], rows, []).credit_prices == (
            CreditPriceVersion(0, 1, first),
            CreditPriceVersion(20, 3, now),
        )

    def test_the_initial_setting_holds_until_the_first_activation(self) -> None:
        first, other = ObjectId(), ObjectId()
        rows = [
            SettingRow(first, first, 1, 99, is_active=False, is_initial=True),
            SettingRow(other, other, 2, 20, is_active=True, is_initial=False),
        ]
        assert fold([], rows, []).credit_prices == (
            CreditPriceVersion(0, 1, first),
            CreditPriceVersion(20, 2, other),
        )

    def test_an_inactive_margin_stays_so_when_what_was_set_for_later_begins(self) -> None:
        margin = ObjectId()
        rows = [
            ProfitRow(ObjectId(), margin, None, 0, 1, is_active=True),
            ProfitRow(ObjectId(), margin, None, 50, 2, is_active=True),
            ProfitRow(ObjectId(), margin, None, 20, 1, is_active=False),
        ]
        versions = fold([], [], rows).profits
        assert in_force(versions, 19).profit_ppm == 1
        assert [in_force(versions, time).profit_ppm for time in (20, 50, 99)] == [None] * 3

    def test_a_namesake_has_only_its_own_margin(self) -> None:
        first, second = ObjectId(), ObjectId()
        models = [model(0, 1, first), model(20, None, first, ends=True), model(30, 2, second)]
        margin = ProfitRow(ObjectId(), ObjectId(), first, 10, 7, is_active=True)
        versions = fold(models, [], [margin]).model_profits[VALUE]
        found = [in_force(versions, time).profit_ppm for time in (0, 10, 19, 30, 99)]
        assert found == [None, 7, 7, None, None]


class TestVersionIds:
    ROW, SETTING, MARGIN, OWN = (ObjectId() for _ in range(4))
    BOOK = PriceBook(
        Prices(
            models={VALUE: (ModelVersion(10, prices(1), ROW), ModelVersion(90, None, ObjectId()))},
            credit_prices=(CreditPriceVersion(0, 1_000_000, SETTING),),
            profits=(ProfitVersion(0, 5, MARGIN),),
            model_profits={VALUE: (ProfitVersion(20, 6, OWN), ProfitVersion(30, None))},
        )
    )

    @pytest.mark.parametrize(
        ("time", "model_row", "margin"),
        [
            (9, None, MARGIN),
            (10, ROW, MARGIN),
            (20, ROW, OWN),
            (30, ROW, MARGIN),
            (90, None, MARGIN),
        ],
    )
    def test_are_those_of_the_charge(
        self, time: int, model_row: ObjectId | None, margin: ObjectId
    ) -> None:
        assert self.BOOK.versions(VALUE, time) == PriceVersionIds(model_row, self.SETTING, margin)
        if model_row is not None:
            assert self.BOOK.charge(VALUE, time, 1, 0, 0, 0).profit_ppm == (
                6 if margin is self.OWN else 5
            )
        else:
            with pytest.raises(DomainError):
                self.BOOK.charge(VALUE, time, 1, 0, 0, 0)

    def test_an_unknown_model_has_none(self) -> None:
        assert self.BOOK.versions("p/other", 50) == PriceVersionIds(None, self.SETTING, self.MARGIN)
