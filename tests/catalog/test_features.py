"""Features through the contract: their fields, their tree, who may do what."""

import asyncio
from typing import Any

import grpc
import pytest
from bson import ObjectId
from zaaz.catalog.v1 import feature_endpoint_pb2, feature_pb2

from server.catalog.endpoints import MAX_DEPTH
from tests.catalog.calls import change_feature, delete_endpoint, new_endpoint, new_feature
from tests.serving import Served, connected, make_key, new_key, reason_of

RACES = 40


async def refusal_of(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call
    return reason_of(refusal.value)


async def features(served: Served, **query: Any) -> list[Any]:
    request = feature_pb2.ListFeaturesRequest(**query)
    return list((await served.catalog.ListFeatures(request)).features)


async def get(served: Served, feature_id: str, *expand: str) -> Any:
    request = feature_pb2.GetFeatureRequest(id=feature_id, expand=expand)
    return (await served.catalog.GetFeature(request)).feature


class TestFields:
    async def test_every_field_comes_back(self, served: Served) -> None:
        parent = await new_feature(served)
        given = feature_pb2.Feature(
            name="Blog posts",
            value=f"blog-{new_key()}",
            parent_id=parent.id,
            description="Long ones",
            path="/write/blog",
            prefix="/api/blog",
            type=feature_pb2.FEATURE_TYPE_WRITING,
            max_word=feature_pb2.WordLimit(free=500, paid=5_000),
            sequence=-3,
            is_active=True,
        )
        made = (
            await served.catalog.CreateFeature(feature_pb2.CreateFeatureRequest(feature=given))
        ).feature
        assert await get(served, made.id) == made
        assert ObjectId.is_valid(made.id)
        assert made.etag
        assert made.created_time == made.updated_time
        for name in ("id", "etag", "created_time", "updated_time"):
            made.ClearField(name)
        assert made == given
        # Nothing is set that has not been looked at, so a new field of the contract fails here.
        unset = {"parent", "is_deleted", "deleted_time"}
        kept = {"id", "etag", "created_time", "updated_time"}
        assert {field.name for field, _ in given.ListFields()} | unset | kept == set(
            feature_pb2.Feature.DESCRIPTOR.fields_by_name
        )

    async def test_its_parent_is_filled_in(self, served: Served) -> None:
        top = await new_feature(served)
        middle = await new_feature(served, parent_id=top.id)
        assert not (await get(served, middle.id)).HasField("parent")
        assert (await get(served, middle.id, "parent")).parent == top
        listed = await features(served, filter=f"parent_id = {top.id}", expand=["parent"])
        assert [(row.id, row.parent) for row in listed] == [(middle.id, top)]
        assert await refusal_of(get(served, middle.id, "parent.parent")) == "EXPAND_INVALID"

    @pytest.mark.parametrize(
        ("condition", "expected"),
        [
            ("type = WRITING", [1]),
            ("type = FEATURE_TYPE_OTHER OR sequence = 1", [1, 2]),
            ("sequence >= 2", [2, 3]),
            ("is_active = true", [1, 3]),
            ("NOT is_active = true", [2]),
            ("sequence < 3 AND is_active = true", [1]),
        ],
    )
    async def test_filters(self, served: Served, condition: str, expected: list[int]) -> None:
        parent = await new_feature(served)
        for sequence, kind in ((1, 1), (2, 3), (3, 2)):
            await new_feature(
                served,
                parent_id=parent.id,
                sequence=sequence,
                type=kind,
                is_active=sequence != 2,
            )
        query = f"parent_id = {parent.id} AND ({condition})"
        rows = await features(served, filter=query, order_by="sequence")
        assert [row.sequence for row in rows] == expected

    async def test_search_by_the_beginning(self, served: Served) -> None:
        key = new_key()
        made = await new_feature(served, name=f"Zebra {key}", value=f"{key}.stripes")
        for text in (f"zebra {key}", key, f"{key}.STR"):
            assert [row.id for row in await features(served, search=text)] == [made.id]
        assert await features(served, search="stripes") == []

    async def test_the_value_of_a_deleted_one_is_free(self, served: Served) -> None:
        first = await new_feature(served)
        assert await refusal_of(new_feature(served, value=first.value)) == "ALREADY_EXISTS"
        await served.catalog.DeleteFeature(feature_pb2.DeleteFeatureRequest(id=first.id))
        second = await new_feature(served, value=first.value)
        restore = feature_pb2.RestoreFeatureRequest(id=first.id)
        assert await refusal_of(served.catalog.RestoreFeature(restore)) == "ALREADY_EXISTS"
        await change_feature(served, second.id, value=f"{first.value}-2")
        assert (await served.catalog.RestoreFeature(restore)).feature.value == first.value


class TestReferences:
    async def test_what_is_referred_to_stays(self, served: Served) -> None:
        feature = await new_feature(served)
        child = await new_feature(served, parent_id=feature.id)
        endpoint = await new_endpoint(served, feature_id=feature.id)
        delete = feature_pb2.DeleteFeatureRequest(id=feature.id)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await served.catalog.DeleteFeature(delete)
        assert reason_of(refusal.value) == "STILL_REFERENCED"
        assert f"features/{child.id}" in (refusal.value.details() or "")
        assert f"feature_endpoints/{endpoint.id}" in (refusal.value.details() or "")
        await served.catalog.DeleteFeature(feature_pb2.DeleteFeatureRequest(id=child.id))
        assert await refusal_of(served.catalog.DeleteFeature(delete)) == "STILL_REFERENCED"
        await delete_endpoint(served, endpoint.id)
        assert (await served.catalog.DeleteFeature(delete)).feature.is_deleted
        purge = feature_pb2.PurgeFeatureRequest(id=feature.id)
        assert await refusal_of(served.catalog.PurgeFeature(purge)) == "STILL_REFERENCED"
        await served.catalog.PurgeFeatureEndpoint(
            feature_endpoint_pb2.PurgeFeatureEndpointRequest(id=endpoint.id)
        )
        await served.catalog.PurgeFeature(feature_pb2.PurgeFeatureRequest(id=child.id))
        await served.catalog.PurgeFeature(purge)
        assert await refusal_of(get(served, feature.id)) == "RESOURCE_NOT_FOUND"

    async def test_a_branch_goes_in_one_batch(self, served: Served) -> None:
        top = await new_feature(served)
        child = await new_feature(served, parent_id=top.id)
        request = feature_pb2.BatchDeleteFeaturesRequest(ids=[top.id, child.id])
        rows = (await served.catalog.BatchDeleteFeatures(request)).features
        assert [(row.id, row.is_deleted) for row in rows] == [(top.id, True), (child.id, True)]
        restore = feature_pb2.RestoreFeatureRequest(id=child.id)
        assert await refusal_of(served.catalog.RestoreFeature(restore)) == "REFERENCE_NOT_FOUND"

    async def test_no_parent_that_is_not_there(self, served: Served) -> None:
        gone = await new_feature(served)
        await served.catalog.DeleteFeature(feature_pb2.DeleteFeatureRequest(id=gone.id))
        for parent_id in (gone.id, str(ObjectId())):
            call = new_feature(served, parent_id=parent_id)
            assert await refusal_of(call) == "REFERENCE_NOT_FOUND"


class TestTree:
    async def test_no_feature_is_a_part_of_itself(self, served: Served) -> None:
        top = await new_feature(served)
        middle = await new_feature(served, parent_id=top.id)
        low = await new_feature(served, parent_id=middle.id)
        for parent_id in (top.id, middle.id, low.id):
            call = change_feature(served, top.id, parent_id=parent_id)
            assert await refusal_of(call) == "CYCLE"
        moved = await change_feature(served, low.id, "parent_id")
        assert moved.parent_id == ""
        assert (await change_feature(served, top.id, parent_id=low.id)).parent_id == low.id

    async def test_it_is_only_so_deep(self, served: Served) -> None:
        ids = [""]
        for _ in range(MAX_DEPTH):
            ids.append((await new_feature(served, parent_id=ids[-1])).id)
        assert await refusal_of(new_feature(served, parent_id=ids[-1])) == "FIELD_INVALID"
        # A branch is as deep as what is below it.
        top = await new_feature(served)
        child = await new_feature(served, parent_id=top.id)
        call = change_feature(served, top.id, parent_id=ids[-2])
        assert await refusal_of(call) == "FIELD_INVALID"
        await change_feature(served, top.id, parent_id=ids[-3])
        # What is deleted does not count, until it comes back.
        await served.catalog.DeleteFeature(feature_pb2.DeleteFeatureRequest(id=child.id))
        await change_feature(served, top.id, parent_id=ids[-2])
        restore = feature_pb2.RestoreFeatureRequest(id=child.id)
        assert await refusal_of(served.catalog.RestoreFeature(restore)) == "FIELD_INVALID"

    async def test_of_two_moves_into_a_circle_one_wins(self, served: Served) -> None:
        for _ in range(RACES):
            one, other = [await new_feature(served) for _ in range(2)]
            below_one = await new_feature(served, parent_id=one.id)
            below_other = await new_feature(served, parent_id=other.id)
            results = await asyncio.gather(
                change_feature(served, one.id, parent_id=below_other.id),
                change_feature(served, other.id, parent_id=below_one.id),
                return_exceptions=True,
            )
            refused = [error for error in results if isinstance(error, grpc.aio.AioRpcError)]
            assert [reason_of(error) for error in refused] == ["CYCLE"]

    async def test_many_moves_at_once_leave_a_tree(self, served: Served) -> None:
        ids = [(await new_feature(served)).id for _ in range(6)]
        for step in range(1, 6):
            await asyncio.gather(
                *(
                    change_feature(served, ids[place], parent_id=ids[(place + step) % 6])
                    for place in range(6)
                ),
                return_exceptions=True,
            )
            parents = {row_id: (await get(served, row_id)).parent_id for row_id in ids}
            for row_id in ids:
                seen = []
                while row_id:
                    assert row_id not in seen
                    seen.append(row_id)
                    row_id = parents[row_id]

    async def test_a_purge_beside_a_new_child(self, served: Served) -> None:
        for _ in range(RACES):
            parent = await new_feature(served)
            purge = served.catalog.PurgeFeature(feature_pb2.PurgeFeatureRequest(id=parent.id))
            outcomes = tuple(
                await asyncio.gather(
                    _outcome(new_feature(served, parent_id=parent.id)), _outcome(purge)
                )
            )
            assert outcomes in (("REFERENCE_NOT_FOUND", ""), ("", "STILL_REFERENCED"))


async def _outcome(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
    return ""


class TestAccess:
    async def test_scopes(self, served: Served, mongo_url: str) -> None:
        key = await make_key(mongo_url, "test_served", "readers", ["catalog.read"])
        made = await new_feature(served)
        async with connected(served.target, key) as reader:
            assert (await get(reader, made.id)).id == made.id
            assert await refusal_of(new_feature(reader)) == "SCOPE_MISSING"
        key = await make_key(mongo_url, "test_served", "writers", ["catalog.write"])
        async with connected(served.target, key) as writer:
            await new_feature(writer)
            assert await refusal_of(get(writer, made.id)) == "SCOPE_MISSING"
