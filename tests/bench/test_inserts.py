"""What stands in for the run that the baseline has still to insert."""

from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from bench.inserts import stand_in


@given(st.lists(st.integers(min_value=1), min_size=1, unique=True))
def test_stand_ins_collide_with_nothing_and_are_rows_of_the_same_size(numbers: list[int]) -> None:
    user_id = ObjectId()
    rows = [{"_id": ObjectId(), "user_id": user_id, "sequence": each} for each in numbers]
    all_of_them = [*rows, *map(stand_in, rows)]
    assert len({row["_id"] for row in all_of_them}) == 2 * len(rows)
    assert len({(row["user_id"], row["sequence"]) for row in all_of_them}) == 2 * len(rows)
    assert [set(row) for row in all_of_them] == [set(rows[0])] * (2 * len(rows))
