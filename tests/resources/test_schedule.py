"""Changes ahead of time: folded in when they are due, told by the history, ended by a deletion."""

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given, settings
from hypothesis import strategies as st
from zaaz.catalog.v1 import feature_endpoint_pb2 as pb

from server.kernel.errors import DomainError, Reason
from server.resources.fields import date
from server.resources.model import MAX_SCHEDULED
from server.resources.schedule import fold, schedule
from tests.resources.calls import EPOCH_MS, make, refused
from tests.resources.conftest import Catalog

moments = st.integers(1, 40).map(lambda ms: date(EPOCH_MS + ms))
changes = st.dictionaries(st.sampled_from(["x", "y"]), st.none() | st.integers(0, 5), min_size=1)


@settings(max_examples=300, deadline=None)
@given(
    asked=st.lists(st.tuples(moments, changes), max_size=MAX_SCHEDULED),
    steps=st.lists(moments, max_size=5),
    last=moments,
)
def test_folding_is_applying_what_is_due_in_order_of_time(
    asked: list[tuple[Any, dict[str, Any]]], steps: list[Any], last: Any
) -> None:
    row: dict[str, Any] = {"x": 9}
    for moment, fields in asked:
        row = schedule(row, moment, fields)
    before = {**row, "scheduled": [dict(item) for item in row.get("scheduled", ())]}
    expected: dict[str, Any] = {"x": 9}
    # A stable sort: of changes for one moment the one that was asked for last comes last.
    for moment, fields in sorted(asked, key=lambda one: one[0]):
        if moment <= last:
            expected.update(fields)
    folded = fold(row, last)
    present = {name: value for name, value in expected.items() if value is not None}
    assert {name: folded[name] for name in ("x", "y") if name in folded} == present
    assert all(item["effective_time"] > last for item in folded.get("scheduled", ()))
    assert {**row, "scheduled": row.get("scheduled", [])} == before, "the row itself is left alone"
    # However often it is folded on the way.
    for moment in sorted(one for one in steps if one <= last):
        row = fold(row, moment)
    assert fold(row, last) == folded


def test_no_more_than_a_bound_may_wait() -> None:
    row: dict[str, Any] = {}
    for place in range(MAX_SCHEDULED):
        row = schedule(row, date(EPOCH_MS + place), {"x": place})
    assert schedule(row, date(EPOCH_MS + 3), {"x": 0})
    with pytest.raises(DomainError) as caught:
        schedule(row, date(EPOCH_MS - 1), {"x": 0})
    assert caught.value.metadata == {"field": "effective_time"}


async def create(catalog: Catalog, ahead_ms: int | None = None) -> pb.FeatureEndpoint:
    feature = await make(catalog, "chat")
    endpoint = pb.FeatureEndpoint(
        feature_id=feature.id, name="Send", value="chat.send", credits_micros=5
    )
    request = pb.CreateFeatureEndpointRequest(feature_endpoint=endpoint, reason="first")
    if ahead_ms is not None:
        request.effective_time.FromMilliseconds(catalog.clock() + ahead_ms)
    made: pb.FeatureEndpoint = (await catalog.call(request)).feature_endpoint
    return made


async def change(
    catalog: Catalog, endpoint: pb.FeatureEndpoint, ahead_ms: int | None = None, **fields: Any
) -> pb.FeatureEndpoint:
    request = pb.UpdateFeatureEndpointRequest(
        feature_endpoint=pb.FeatureEndpoint(id=endpoint.id, **fields),
        update_mask=FieldMask(paths=list(fields)),
    )
    if ahead_ms is not None:
        request.effective_time.FromMilliseconds(catalog.clock() + ahead_ms)
    changed: pb.FeatureEndpoint = (await catalog.call(request)).feature_endpoint
    return changed


async def credits_of(catalog: Catalog, endpoint: pb.FeatureEndpoint) -> int:
    got = await catalog.call(pb.GetFeatureEndpointRequest(id=endpoint.id))
    (listed,) = (await catalog.call(pb.ListFeatureEndpointsRequest())).feature_endpoints
    assert listed == got.feature_endpoint
    return int(listed.credits_micros)


async def histories(catalog: Catalog) -> list[pb.FeatureEndpointHistory]:
    """All of them, in the order of writing."""
    request = pb.ListFeatureEndpointHistoriesRequest(order_by="created_time")
    found = list((await catalog.call(request)).feature_endpoint_histories)
    for one in found:
        got = await catalog.call(pb.GetFeatureEndpointHistoryRequest(id=one.id))
        assert got.feature_endpoint_history == one
    return found


async def test_a_change_ahead_comes_into_force_at_its_time(catalog: Catalog) -> None:
    made = await create(catalog)
    now = catalog.clock()
    changed = await change(catalog, made, 1_000, credits_micros=7)
    assert (changed.credits_micros, changed.etag) == (5, "2")
    catalog.clock.advance(999)
    assert await credits_of(catalog, made) == 5
    catalog.clock.advance(1)
    assert await credits_of(catalog, made) == 7
    # A change that is written after it keeps it.
    assert (await change(catalog, made, name="Other")).credits_micros == 7
    assert [
        (one.credits_micros, one.name, one.effective_time.ToMilliseconds() - now, one.reason)
        for one in await histories(catalog)
    ] == [(5, "Send", 0, "first"), (7, "Send", 1_000, ""), (7, "Other", 1_000, "")]


async def test_several_wait_and_each_is_made_from_what_is_in_force_then(catalog: Catalog) -> None:
    made = await create(catalog)
    await change(catalog, made, 300, credits_micros=3)
    await change(catalog, made, 100, credits_micros=1)
    await change(catalog, made, 200, credits_micros=2)
    # That it will be so then is known already.
    assert (await change(catalog, made, 250, credits_micros=2)).etag == "4"
    for wanted in (1, 2, 3):
        catalog.clock.advance(100)
        assert await credits_of(catalog, made) == wanted
        # A write stores what is in force by then, and keeps what is still to come.
        await change(catalog, made, name=f"after {wanted}")


async def test_a_new_row_may_begin_in_the_past_or_later(catalog: Catalog) -> None:
    made = await create(catalog, ahead_ms=500)
    assert made.credits_micros == 0
    catalog.clock.advance(500)
    assert await credits_of(catalog, made) == 5
    (only,) = await histories(catalog)
    assert only.effective_time.ToMilliseconds() == catalog.clock()


async def test_in_the_past_it_is_in_force_at_once(catalog: Catalog) -> None:
    made = await create(catalog, ahead_ms=-86_400_000)
    assert made.credits_micros == 5
    (only,) = await histories(catalog)
    assert only.effective_time.ToMilliseconds() == catalog.clock() - 86_400_000
    assert only.client_id == "tests"


async def test_only_scheduled_fields_may_wait_and_nothing_change_behind(catalog: Catalog) -> None:
    made = await create(catalog)
    with refused(Reason.FIELD_INVALID, field="effective_time"):
        await change(catalog, made, 1_000, name="Other", credits_micros=7)
    with refused(Reason.FIELD_INVALID, field="effective_time"):
        await change(catalog, made, -1, credits_micros=7)
    assert len(await histories(catalog)) == 1


async def test_a_deletion_ends_what_was_to_come(catalog: Catalog) -> None:
    made = await create(catalog)
    await change(catalog, made, 1_000, credits_micros=7)
    await catalog.call(pb.DeleteFeatureEndpointRequest(id=made.id, reason="over"))
    await catalog.call(pb.RestoreFeatureEndpointRequest(id=made.id))
    catalog.clock.advance(1_000)
    assert await credits_of(catalog, made) == 5
    said = await histories(catalog)
    assert [one.is_deleted for one in said] == [False, False, True, False]
    assert not said[2].HasField("credits_micros")
    assert said[2].reason == "over"
    assert said[3].credits_micros == 5


async def test_a_purged_row_leaves_its_history(catalog: Catalog) -> None:
    made = await create(catalog)
    await catalog.call(pb.PurgeFeatureEndpointRequest(id=made.id, reason="gone"))
    said = await histories(catalog)
    assert [(one.is_deleted, one.reason) for one in said] == [(False, "first"), (True, "gone")]
    request = pb.ListFeatureEndpointHistoriesRequest(filter=f"feature_endpoint_id = {made.id}")
    assert len((await catalog.call(request)).feature_endpoint_histories) == 2


async def test_a_reference_is_filled_in_as_of_now(catalog: Catalog) -> None:
    made = await create(catalog)
    got = await catalog.call(pb.GetFeatureEndpointRequest(id=made.id, expand=["feature"]))
    assert got.feature_endpoint.feature.value == "chat"
    assert got.feature_endpoint.feature.etag == "1"
