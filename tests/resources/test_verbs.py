"""The eight verbs, one by one, and what each refuses."""

import pytest
from zaaz.catalog.v1 import feature_pb2 as pb

from server.kernel.errors import DomainError, Reason
from tests.resources.calls import change, delete, get, make, refused, values
from tests.resources.conftest import Catalog
from tests.serving import new_key, new_user


class TestCreate:
    async def test_a_row_is_made_and_read(self, catalog: Catalog) -> None:
        made = await make(catalog, "chat", max_word={"free": 1, "paid": 2}, sequence=3)
        assert made.etag == "1"
        assert not made.is_deleted
        assert made.created_time.ToMilliseconds() == catalog.clock()
        assert made.updated_time == made.created_time
        assert await get(catalog, made) == made
        assert await values(catalog, filter='value = "chat"') == ["chat"]

    async def test_what_is_output_only_is_not_taken_from_the_caller(self, catalog: Catalog) -> None:
        own = new_user()
        made = await make(catalog, "chat", id=own, etag="7", is_deleted=True, parent={"name": "x"})
        assert made.id != own
        assert made.etag == "1"
        assert not made.is_deleted
        assert not made.HasField("parent")

    async def test_a_taken_value_is_named(self, catalog: Catalog) -> None:
        made = await make(catalog, "chat")
        with refused(Reason.ALREADY_EXISTS, field="value", id=made.id):
            await make(catalog, "chat")

    async def test_a_reference_has_to_be_live(self, catalog: Catalog) -> None:
        parent = await make(catalog, "parent")
        await delete(catalog, parent)
        with refused(Reason.REFERENCE_NOT_FOUND, field="parent_id", id=parent.id):
            await make(catalog, "child", parent_id=parent.id)
        assert await values(catalog) == []

    async def test_rules_of_the_contract_are_named_as_in_the_request(
        self, catalog: Catalog
    ) -> None:
        with refused(Reason.FIELD_INVALID, field="feature.value"):
            await make(catalog, "not a slug")
        with refused(Reason.MALFORMED_ID, field="feature.parent_id"):
            await make(catalog, "chat", parent_id="XYZ")


class TestUpdate:
    async def test_only_the_mask_is_changed(self, catalog: Catalog) -> None:
        made = await make(catalog, "chat", sequence=3, max_word={"free": 1, "paid": 2})
        catalog.clock.advance(5)
        changed = await change(
            catalog, made, "name", "max_word.free", name="Chat", max_word={"free": 9}, sequence=8
        )
        assert (changed.name, changed.sequence) == ("Chat", 3)
        assert (changed.max_word.free, changed.max_word.paid) == (9, 2)
        assert changed.etag == "2"
        assert changed.updated_time.ToMilliseconds() == catalog.clock()
        assert await get(catalog, made) == changed

    async def test_a_mask_of_unset_fields_unsets_them(self, catalog: Catalog) -> None:
        made = await make(catalog, "chat", sequence=3, max_word={"free": 1})
        changed = await change(catalog, made, "sequence", "max_word")
        assert changed.sequence == 0
        assert not changed.HasField("max_word")

    async def test_without_a_mask_what_is_set_is_changed(self, catalog: Catalog) -> None:
        made = await make(catalog, "chat", sequence=3)
        made.name = "Chat"
        changed = (await catalog.call(pb.UpdateFeatureRequest(feature=made))).feature
        assert (changed.name, changed.sequence, changed.etag) == ("Chat", 3, "2")

    async def test_no_change_writes_nothing(self, catalog: Catalog) -> None:
        made = await make(catalog, "chat", sequence=3, max_word={"free": 1})
        catalog.clock.advance(5)
        assert await change(catalog, made, "name", name="chat") == made
        assert await get(catalog, made) == made

    @pytest.mark.parametrize(
        "path", ["nothing", "max_word.none", "name.x", "created_time", "id", "parent.name", ""]
    )
    async def test_a_path_that_cannot_be_set_is_refused(self, catalog: Catalog, path: str) -> None:
        made = await make(catalog, "chat")
        with refused(Reason.UPDATE_MASK_INVALID, path=path):
            await change(catalog, made, path)

    async def test_an_immutable_field_stays(self, catalog: Catalog) -> None:
        made = await make(catalog, "chat")
        with refused(Reason.FIELD_IMMUTABLE, field="value"):
            await change(catalog, made, "value", value="other")
        assert (await change(catalog, made, "value", "name", value="chat", name="Chat")).etag == "2"

    async def test_a_stale_etag_is_refused(self, catalog: Catalog) -> None:
        made = await make(catalog, "chat")
        await change(catalog, made, "name", name="Chat")
        with refused(Reason.ETAG_MISMATCH, etag="2"):
            await change(catalog, made, "name", name="Talk", etag="1")
        assert (await change(catalog, made, "name", name="Talk", etag="2")).etag == "3"

    async def test_the_row_is_checked_as_it_will_be(self, catalog: Catalog) -> None:
        made = await make(catalog, "chat")
        with refused(Reason.FIELD_INVALID, field="feature.name"):
            await change(catalog, made, "name")
        with refused(Reason.FIELD_INVALID, field="feature.max_word.free"):
            await change(catalog, made, "max_word.free", max_word={"free": -1})

    async def test_deleted_rows_and_unknown_ids_are_not_found(self, catalog: Catalog) -> None:
        made = await make(catalog, "chat")
        await delete(catalog, made)
        with refused(Reason.RESOURCE_NOT_FOUND, resource="features", id=made.id):
            await change(catalog, made, "name", name="Chat")
        with refused(Reason.RESOURCE_NOT_FOUND):
            await change(catalog, pb.Feature(id=new_user()), "name", name="Chat")
        with refused(Reason.MALFORMED_ID, field="feature.id"):
            await change(catalog, pb.Feature(id="x"), "name", name="Chat")


class TestDelete:
    async def test_the_row_is_put_away(self, catalog: Catalog) -> None:
        made = await make(catalog, "chat")
        deleted = await delete(catalog, made)
        assert deleted.is_deleted
        assert deleted.deleted_time.ToMilliseconds() == catalog.clock()
        assert await get(catalog, made) == deleted
        assert await values(catalog) == []
        assert await values(catalog, show_deleted=True) == ["chat"]

    async def test_twice_is_fine(self, catalog: Catalog) -> None:
        made = await make(catalog, "chat")
        deleted = await delete(catalog, made, etag="1")
        assert await delete(catalog, made, etag="1") == deleted

    async def test_a_stale_etag_is_refused(self, catalog: Catalog) -> None:
        made = await make(catalog, "chat")
        with refused(Reason.ETAG_MISMATCH, etag="1"):
            await delete(catalog, made, etag="2")

    async def test_live_referrers_are_named(self, catalog: Catalog) -> None:
        parent = await make(catalog, "parent")
        child = await make(catalog, "child", parent_id=parent.id)
        with refused(Reason.STILL_REFERENCED, id=parent.id, references=f"features/{child.id}"):
            await delete(catalog, parent)
        await delete(catalog, child)
        assert (await delete(catalog, parent)).is_deleted

    async def test_the_value_is_free_again(self, catalog: Catalog) -> None:
        first = await make(catalog, "chat")
        await delete(catalog, first)
        second = await make(catalog, "chat")
        with refused(Reason.ALREADY_EXISTS, field="value", id=second.id):
            await catalog.call(pb.RestoreFeatureRequest(id=first.id))
        await delete(catalog, second)
        restored = (await catalog.call(pb.RestoreFeatureRequest(id=first.id))).feature
        assert not restored.is_deleted
        assert not restored.HasField("deleted_time")
        assert restored.etag == "3"


class TestRestore:
    async def test_a_live_row_stays_as_it_is(self, catalog: Catalog) -> None:
        made = await make(catalog, "chat")
        assert (await catalog.call(pb.RestoreFeatureRequest(id=made.id))).feature == made

    async def test_its_references_have_to_be_live(self, catalog: Catalog) -> None:
        parent = await make(catalog, "parent")
        child = await make(catalog, "child", parent_id=parent.id)
        request = pb.BatchDeleteFeaturesRequest(ids=[child.id, parent.id])
        deleted = (await catalog.call(request)).features
        assert [one.id for one in deleted] == [child.id, parent.id]
        with refused(Reason.REFERENCE_NOT_FOUND, field="parent_id"):
            await catalog.call(pb.RestoreFeatureRequest(id=child.id))


class TestPurge:
    async def test_the_row_is_gone(self, catalog: Catalog) -> None:
        made = await make(catalog, "chat")
        await catalog.call(pb.PurgeFeatureRequest(id=made.id))
        with refused(Reason.RESOURCE_NOT_FOUND, resource="features", id=made.id):
            await get(catalog, made)

    async def test_deleted_referrers_are_named_too(self, catalog: Catalog) -> None:
        parent = await make(catalog, "parent")
        children = [await make(catalog, f"c{i}", parent_id=parent.id) for i in range(12)]
        for child in children:
            await delete(catalog, child)
        with pytest.raises(DomainError) as caught:
            await catalog.call(pb.PurgeFeatureRequest(id=parent.id))
        assert caught.value.reason is Reason.STILL_REFERENCED
        named = caught.value.metadata["references"].split()
        assert len(named) == 10
        assert set(named) <= {f"features/{child.id}" for child in children}


class TestBatchDelete:
    async def test_all_or_none(self, catalog: Catalog) -> None:
        rows = [await make(catalog, f"f{i}") for i in range(3)]
        child = await make(catalog, "child", parent_id=rows[1].id)
        ids = [one.id for one in rows]
        with refused(Reason.STILL_REFERENCED, references=f"features/{child.id}"):
            await catalog.call(pb.BatchDeleteFeaturesRequest(ids=ids))
        with refused(Reason.RESOURCE_NOT_FOUND):
            await catalog.call(pb.BatchDeleteFeaturesRequest(ids=[rows[0].id, new_user()]))
        assert len(await values(catalog)) == 4
        deleted = await catalog.call(pb.BatchDeleteFeaturesRequest(ids=[*ids, child.id]))
        assert [one.id for one in deleted.features] == [*ids, child.id]
        assert await values(catalog) == []

    async def test_five_hundred_at_once(self, catalog: Catalog) -> None:
        made = await make(catalog, "first")
        rows = catalog.database.collection("features")
        row = await rows.find_one({"value": "first"})
        assert row is not None
        copies = [{**row, "_id": type(row["_id"])(), "value": f"v{i}"} for i in range(499)]
        await rows.insert_many(copies)
        ids = [made.id, *(str(one["_id"]) for one in copies)]
        deleted = await catalog.call(pb.BatchDeleteFeaturesRequest(ids=ids))
        assert [one.id for one in deleted.features] == ids
        assert await values(catalog) == []


class TestRequestId:
    async def test_the_same_request_again_has_the_first_answer(self, catalog: Catalog) -> None:
        request = pb.CreateFeatureRequest(
            request_id=new_key(), feature=pb.Feature(name="Chat", value="chat")
        )
        first = await catalog.call(request)
        await change(catalog, first.feature, "name", name="Other")
        assert await catalog.call(request) == first
        assert catalog.refreshed == 3
        deleting = pb.DeleteFeatureRequest(request_id=new_key(), id=first.feature.id, etag="2")
        deleted = await catalog.call(deleting)
        await catalog.call(pb.RestoreFeatureRequest(id=first.feature.id))
        assert await catalog.call(deleting) == deleted
        assert not (await get(catalog, first.feature)).is_deleted

    async def test_another_payload_or_verb_is_refused(self, catalog: Catalog) -> None:
        key = new_key()
        feature = pb.Feature(name="Chat", value="chat")
        made = await catalog.call(pb.CreateFeatureRequest(request_id=key, feature=feature))
        feature.value = "other"
        with refused(Reason.REQUEST_ID_REUSED, request_id=key):
            await catalog.call(pb.CreateFeatureRequest(request_id=key, feature=feature))
        with refused(Reason.REQUEST_ID_REUSED, request_id=key):
            await catalog.call(pb.PurgeFeatureRequest(request_id=key, id=made.feature.id))

    async def test_a_refusal_is_not_remembered(self, catalog: Catalog) -> None:
        taken = await make(catalog, "chat")
        request = pb.CreateFeatureRequest(
            request_id=new_key(), feature=pb.Feature(name="Chat", value="chat")
        )
        with refused(Reason.ALREADY_EXISTS):
            await catalog.call(request)
        await delete(catalog, taken)
        assert (await catalog.call(request)).feature.value == "chat"


async def test_references_are_filled_in(catalog: Catalog) -> None:
    parent = await make(catalog, "parent")
    child = await make(catalog, "child", parent_id=parent.id)
    got = await get(catalog, child, expand=["parent"])
    assert got.parent == parent
    listed = await catalog.call(pb.ListFeaturesRequest(expand=["parent"], order_by="name"))
    assert [one.parent.value for one in listed.features] == ["parent", ""]
    for path in ("parent.parent", "nothing", "name"):
        with refused(Reason.EXPAND_INVALID, path=path):
            await get(catalog, child, expand=[path])
        with refused(Reason.EXPAND_INVALID, path=path):
            await catalog.call(pb.ListFeaturesRequest(expand=[path]))
