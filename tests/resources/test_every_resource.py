"""What every resource does, for every one that the server declares: each verb, each refusal."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from bson import ObjectId
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from server.auth.model import SCOPES
from server.composition import RESOURCES
from server.resources.model import OUTPUT_ONLY
from tests.conftest import MongoClient
from tests.ledger.calls import refused
from tests.resources.every import READS, WRITES, Kind, kinds, repeated, scopes
from tests.serving import Served, connected, make_key, new_key, serving

KINDS = kinds(RESOURCES)
ROWS = [kind for kind in KINDS if not kind.resource.read_only]
VERSIONED = [kind for kind in ROWS if kind.resource.history is not None]
BY_COLLECTION = {kind.resource.collection: kind for kind in KINDS}
METHODS = [(kind, verb) for kind in KINDS for verb in kind.methods]
MAX_PAGE_SIZE = 1_000
DATABASE = f"test_{new_key()[:16]}"

any_row = pytest.mark.parametrize("kind", ROWS, ids=repr)
any_kind = pytest.mark.parametrize("kind", KINDS, ids=repr)


@pytest.fixture(scope="module")
async def server(mongo_url: str, mongo_client: MongoClient) -> AsyncIterator[Served]:
    """One of its own: what is made here would change the prices of other tests."""
    async with serving(mongo_url, DATABASE) as served:
        for kind in ROWS:
            # Of kinds that always have one that stands out, that is this one, which stays.
            await kind.new(served)
        yield served
    await mongo_client.drop_database(DATABASE)


@pytest.fixture(scope="module")
async def keys(server: Served, mongo_url: str) -> dict[str, str]:
    """A key for each scope."""
    return {scope: await make_key(mongo_url, DATABASE, "partner", [scope]) for scope in SCOPES}


@any_kind
def test_every_verb_has_its_method(kind: Kind) -> None:
    verbs = READS if kind.resource.read_only else (*READS, *WRITES)
    assert set(kind.methods) == set(verbs)


@pytest.mark.parametrize(("kind", "verb"), METHODS, ids=lambda value: str(value))
class TestAccess:
    async def test_without_a_key(self, server: Served, kind: Kind, verb: str) -> None:
        async with grpc.aio.insecure_channel(server.target) as channel:
            nobody = Served(server.target, "", channel)
            with refused("CREDENTIALS_MISSING"):
                await kind.call(nobody, verb)

    async def test_with_each_scope(
        self, server: Served, keys: dict[str, str], kind: Kind, verb: str
    ) -> None:
        needed = {*scopes(kind.methods[verb]), "admin"}
        reads = verb in READS
        assert all(scope.endswith(".read" if reads else ".write") for scope in needed - {"admin"})
        for scope, key in keys.items():
            async with connected(server.target, key) as caller:
                if scope not in needed:
                    with refused("SCOPE_MISSING"):
                        await kind.call(caller, verb)
                elif verb == "List":
                    await kind.call(caller, verb)
                else:
                    # Let in, and told what is wrong with an empty request.
                    with pytest.raises(grpc.aio.AioRpcError) as refusal:
                        await kind.call(caller, verb)
                    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def by_id(kind: Kind, verb: str, row_id: str) -> dict[str, Any]:
    """The fields of a request for one row."""
    if verb == "BatchDelete":
        return {"ids": [row_id]}
    if verb == "Update":
        return {kind.field: kind.resource.message(id=row_id, **{kind.changeable: kind.changed})}
    return {"id": row_id}


@pytest.mark.parametrize(
    ("kind", "verb"),
    [(kind, verb) for kind, verb in METHODS if verb not in ("List", "Create")],
    ids=lambda value: str(value),
)
class TestIds:
    async def test_malformed(self, server: Served, kind: Kind, verb: str) -> None:
        for text in ("", "x", "0" * 23, "G" * 24, "A" * 24):
            with refused("MALFORMED_ID"):
                await kind.call(server, verb, **by_id(kind, verb, text))

    async def test_unknown(self, server: Served, kind: Kind, verb: str) -> None:
        row_id = str(ObjectId())
        with refused("RESOURCE_NOT_FOUND") as refusal:
            await kind.call(server, verb, **by_id(kind, verb, row_id))
        assert refusal.metadata == {"resource": kind.resource.collection, "id": row_id}


def fields(message: Any) -> dict[str, Any]:
    """What is set."""
    return {field.name: value for field, value in message.ListFields()}


@any_row
class TestLife:
    async def test_from_create_to_purge(self, server: Served, kind: Kind) -> None:
        given = await kind.valid(server)
        made = await kind.one(server, "Create", **{kind.field: given})
        for field, value in given.ListFields():
            assert getattr(made, field.name) == value
        assert made.created_time == made.updated_time
        assert await kind.one(server, "Get", id=made.id) == made
        deleted = await kind.one(server, "Delete", id=made.id)
        assert deleted.is_deleted
        assert deleted.HasField("deleted_time")
        assert await kind.one(server, "Get", id=made.id) == deleted
        assert await kind.one(server, "Delete", id=made.id) == deleted
        assert made.id not in {row.id for row in await kind.rows(server, page_size=MAX_PAGE_SIZE)}
        all_rows = await kind.rows(server, page_size=MAX_PAGE_SIZE, show_deleted=True)
        assert deleted in all_rows
        with refused("RESOURCE_NOT_FOUND"):
            await kind.call(server, "Update", **by_id(kind, "Update", made.id))
        restored = await kind.one(server, "Restore", id=made.id)
        assert not restored.is_deleted
        assert not restored.HasField("deleted_time")
        assert await kind.one(server, "Restore", id=made.id) == restored
        assert len({made.etag, deleted.etag, restored.etag}) == 3
        await kind.call(server, "Purge", id=made.id)
        for verb in ("Get", "Delete", "Restore", "Purge"):
            with refused("RESOURCE_NOT_FOUND"):
                await kind.call(server, verb, id=made.id)

    async def test_batch_delete_is_all_or_none(self, server: Served, kind: Kind) -> None:
        ids = [(await kind.new(server)).id for _ in range(3)]
        with refused("RESOURCE_NOT_FOUND"):
            await kind.call(server, "BatchDelete", ids=[*ids, str(ObjectId())])
        for row_id in ids:
            assert not (await kind.one(server, "Get", id=row_id)).is_deleted
        answer = await kind.call(server, "BatchDelete", ids=ids)
        rows = getattr(answer, repeated(answer))
        assert [(row.id, row.is_deleted) for row in rows] == [(row_id, True) for row_id in ids]

    async def test_what_is_output_only_is_not_the_caller_s(
        self, server: Served, kind: Kind
    ) -> None:
        given = await kind.valid(server)
        row_id = str(ObjectId())
        given.id, given.is_deleted, given.etag = row_id, True, "77"
        given.created_time.FromSeconds(1)
        made = await kind.one(server, "Create", **{kind.field: given})
        assert made.id != row_id
        assert not made.is_deleted
        assert made.created_time.seconds > 1


@any_row
class TestUpdate:
    async def test_only_the_mask(self, server: Served, kind: Kind) -> None:
        made = await kind.new(server)
        change = kind.resource.message(
            id=made.id, etag=made.etag, **{kind.changeable: kind.changed}
        )
        changed = await kind.one(
            server,
            "Update",
            **{kind.field: change, "update_mask": FieldMask(paths=[kind.changeable])},
        )
        assert getattr(changed, kind.changeable) == kind.changed
        assert await kind.one(server, "Get", id=made.id) == changed
        for name in ("etag", "updated_time", kind.changeable, *kind.resource.output_only):
            for row in (made, changed):
                row.ClearField(name)
        assert changed == made

    async def test_a_stale_etag(self, server: Served, kind: Kind) -> None:
        made = await kind.new(server)
        changed = await kind.one(server, "Update", **by_id(kind, "Update", made.id))
        assert changed.etag != made.etag
        change = by_id(kind, "Update", made.id)
        change[kind.field].etag = made.etag
        with refused("ETAG_MISMATCH"):
            await kind.call(server, "Update", **change)
        with refused("ETAG_MISMATCH"):
            await kind.call(server, "Delete", id=made.id, etag=made.etag)
        await kind.call(server, "Delete", id=made.id, etag=changed.etag)

    async def test_the_same_again_is_no_change(self, server: Served, kind: Kind) -> None:
        made = await kind.new(server)
        first = await kind.one(server, "Update", **by_id(kind, "Update", made.id))
        assert await kind.one(server, "Update", **by_id(kind, "Update", made.id)) == first

    async def test_paths_that_cannot_be_changed(self, server: Served, kind: Kind) -> None:
        made = await kind.new(server)
        known = set(kind.resource.message.DESCRIPTOR.fields_by_name)
        output_only = (known & {*OUTPUT_ONLY, *kind.resource.output_only}) - {"etag", "id"}
        for path in (*output_only, "no_such_field"):
            change = {kind.field: made, "update_mask": FieldMask(paths=[path])}
            with refused("UPDATE_MASK_INVALID") as refusal:
                await kind.call(server, "Update", **change)
            assert refusal.metadata == {"path": path}

    async def test_immutable_fields(self, server: Served, kind: Kind) -> None:
        made = await kind.new(server)
        other = await kind.valid(server)
        for name in kind.resource.immutable:
            change = kind.resource.message(id=made.id)
            value = getattr(other, name)
            setattr(change, name, value + 1 if isinstance(value, int) else value)
            with refused("FIELD_IMMUTABLE") as refusal:
                await kind.call(server, "Update", **{kind.field: change})
            assert refusal.metadata == {"field": name}
        assert await kind.one(server, "Get", id=made.id) == made

    async def test_the_contract_s_rules(self, server: Served, kind: Kind) -> None:
        if kind.broken is None:
            return
        made = await kind.new(server)
        wrong = kind.resource.message(id=made.id, **{kind.changeable: kind.broken})
        for verb in ("Update", "Create"):
            with refused("FIELD_INVALID") as refusal:
                await kind.call(server, verb, **{kind.field: wrong})
            assert refusal.metadata["field"].startswith(f"{kind.field}.")


@any_row
class TestReplays:
    async def test_the_first_answer(self, server: Served, kind: Kind) -> None:
        made = await kind.new(server)
        key = new_key()
        given = await kind.valid(server)
        first = await kind.call(server, "Create", request_id=key, **{kind.field: given})
        assert await kind.call(server, "Create", request_id=key, **{kind.field: given}) == first
        for verb in ("Update", "Delete", "Restore", "BatchDelete", "Purge"):
            key, fields = new_key(), by_id(kind, verb, made.id)
            first = await kind.call(server, verb, request_id=key, **fields)
            assert await kind.call(server, verb, request_id=key, **fields) == first
            with refused("REQUEST_ID_REUSED"):
                await kind.call(server, verb, request_id=key, **by_id(kind, verb, str(ObjectId())))

    async def test_another_client_has_ids_of_its_own(
        self, server: Served, mongo_url: str, kind: Kind
    ) -> None:
        key, given = new_key(), await kind.valid(server)
        await kind.call(server, "Create", request_id=key, **{kind.field: given})
        other = await make_key(mongo_url, DATABASE, "other", ["admin"])
        async with connected(server.target, other) as caller:
            fresh = await kind.valid(server)
            await kind.call(caller, "Create", request_id=key, **{kind.field: fresh})


@any_row
class TestUnique:
    async def test_among_live_rows(self, server: Served, kind: Kind) -> None:
        for name in kind.unique_texts:
            taken = await kind.new(server)
            with refused("ALREADY_EXISTS") as refusal:
                await kind.new(server, **{name: getattr(taken, name)})
            assert refusal.metadata == {"field": name, "id": taken.id}
            await kind.call(server, "Delete", id=taken.id)
            second = await kind.new(server, **{name: getattr(taken, name)})
            with refused("ALREADY_EXISTS"):
                await kind.call(server, "Restore", id=taken.id)
            await kind.call(server, "Delete", id=second.id)
            await kind.call(server, "Restore", id=taken.id)


REFERENCES = [(kind, reference) for kind in ROWS for reference in kind.resource.references]


@pytest.mark.parametrize(("kind", "reference"), REFERENCES, ids=lambda value: str(value)[:24])
class TestReferences:
    async def test_both_sides(self, server: Served, kind: Kind, reference: Any) -> None:
        target = BY_COLLECTION[reference.collection]
        with refused("REFERENCE_NOT_FOUND") as refusal:
            await kind.new(server, **fields(kind.referring(reference, str(ObjectId()))))
        assert refusal.metadata["field"] == reference.field
        other = await target.new(server)
        row = await kind.new(server, **fields(kind.referring(reference, other.id)))
        for verb in ("Delete", "Purge"):
            with refused("STILL_REFERENCED") as refusal:
                await target.call(server, verb, id=other.id)
            named = refusal.metadata["references"].split()
            assert f"{kind.resource.collection}/{row.id}" in named
        await kind.call(server, "Delete", id=row.id)
        await target.call(server, "Delete", id=other.id)
        with refused("STILL_REFERENCED"):
            await target.call(server, "Purge", id=other.id)
        with refused("REFERENCE_NOT_FOUND"):
            await kind.call(server, "Restore", id=row.id)

    async def test_filled_in_when_asked(self, server: Served, kind: Kind, reference: Any) -> None:
        if not reference.expand:
            return
        target = BY_COLLECTION[reference.collection]
        other = await target.new(server)
        row = await kind.new(server, **{reference.field: other.id})
        assert not row.HasField(reference.expand)
        found = await kind.one(server, "Get", id=row.id, expand=[reference.expand])
        assert getattr(found, reference.expand) == other
        listed = await kind.rows(
            server, filter=f"{reference.field} = {other.id}", expand=[reference.expand]
        )
        assert listed == [found]


def condition(row: Any, name: str) -> str:
    """A filter that the row's own value passes; "" where it has none."""
    field, value = row.DESCRIPTOR.fields_by_name[name], getattr(row, name)
    if field.is_repeated:
        return f"{name} : {value[0]}" if value else ""
    same = literal(row, name)
    return f"{name} = {same}" if same else ""


def literal(row: Any, name: str) -> str:
    """A field's value as a filter writes it; "" where it has none."""
    field, value = row.DESCRIPTOR.fields_by_name[name], getattr(row, name)
    if isinstance(value, Timestamp):
        return f'"{value.ToJsonString()}"' if row.HasField(name) else ""
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name) if value else ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) and value else str(value)


@any_row
class TestList:
    async def test_each_filterable_field(self, server: Served, kind: Kind) -> None:
        row = await kind.new(server)
        newest = {"order_by": "created_time desc", "page_size": MAX_PAGE_SIZE}
        for name in kind.resource.filterable:
            same = condition(row, name)
            if not same:
                continue
            for text, is_in in ((same, True), (f"NOT {same}", False)):
                rows = await kind.rows(server, filter=text, **newest)
                assert (row in rows) is is_in, text

    async def test_each_sortable_field(self, server: Served, kind: Kind) -> None:
        for _ in range(3):
            await kind.new(server)
        for name in kind.resource.sortable:
            for direction in ("asc", "desc"):
                rows = await kind.rows(
                    server, order_by=f"{name} {direction}", page_size=MAX_PAGE_SIZE
                )
                values = [_sort_key(getattr(row, name)) for row in rows]
                assert len(values) >= 3
                assert values == sorted(values, reverse=direction == "desc")

    async def test_search(self, server: Served, kind: Kind) -> None:
        for name in kind.resource.searchable:
            text = f"r-{new_key()}"
            row = await kind.new(server, **{name: text})
            for part in (text, text[:20].upper()):
                assert await kind.rows(server, search=part) == [row]
            assert await kind.rows(server, search=text[1:]) == []

    async def test_pages_and_the_total(self, server: Served, kind: Kind) -> None:
        for _ in range(5):
            await kind.new(server)
        total = (await kind.call(server, "List", with_total_size=True)).total_size
        whole = await _pages(server, kind, MAX_PAGE_SIZE)
        assert len(whole) == len(set(whole)) == total
        assert await _pages(server, kind, total // 4 + 1) == whole


async def _pages(served: Served, kind: Kind, size: int) -> list[str]:
    """The ids of all rows, by pages of this size."""
    ids: list[str] = []
    token = ""
    while True:
        page = await kind.call(served, "List", page_size=size, page_token=token)
        rows = getattr(page, repeated(page))
        assert len(rows) <= size
        assert page.total_size == 0
        ids += [row.id for row in rows]
        token = page.next_page_token
        if not token:
            return ids


@any_kind
class TestListRefusals:
    async def test_what_cannot_be_read(self, server: Served, kind: Kind) -> None:
        with refused("FILTER_INVALID") as refusal:
            await kind.call(server, "List", filter="no_such_field = 1")
        assert refusal.metadata == {"position": "0", "field": "no_such_field"}
        with refused("ORDER_BY_INVALID"):
            await kind.call(server, "List", order_by="no_such_field")
        with refused("PAGE_TOKEN_INVALID"):
            await kind.call(server, "List", page_token="x")
        for verb in READS:
            if kind.takes(verb, "expand"):
                fields = {} if verb == "List" else {"id": str(ObjectId())}
                with refused("EXPAND_INVALID"):
                    await kind.call(server, verb, expand=["no_such_field"], **fields)


@pytest.mark.parametrize("kind", VERSIONED, ids=repr)
class TestHistory:
    async def test_a_row_for_every_change(self, server: Served, kind: Kind) -> None:
        declared = kind.resource.history
        assert declared is not None
        history = BY_COLLECTION[declared.collection]
        made = await kind.new(server)
        for verb in ("Update", "Delete", "Restore"):
            await kind.call(server, verb, reason=verb, **by_id(kind, verb, made.id))
        await kind.call(server, "Update", **by_id(kind, "Update", made.id))
        rows = await history.rows(
            server, filter=f"{declared.field} = {made.id}", order_by="created_time"
        )
        assert [row.reason for row in rows] == ["", "Update", "Delete", "Restore"]
        assert [row.is_deleted for row in rows] == [False, False, True, False]
        assert {row.client_id for row in rows} == {"tests"}
        assert all(row.HasField("effective_time") for row in rows)
        for name in declared.scheduled:
            if rows[0].HasField(name):
                assert not rows[2].HasField(name)
        for row in rows:
            assert await history.one(server, "Get", id=row.id) == row


def _sort_key(value: Any) -> Any:
    return value.ToNanoseconds() if isinstance(value, Timestamp) else value
