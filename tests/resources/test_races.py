"""Two at once: one wins, and whoever lost is told why. Real concurrency over two clients."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from bson import ObjectId
from zaaz.catalog.v1 import feature_endpoint_pb2 as endpoint_pb
from zaaz.catalog.v1 import feature_pb2 as pb

from server.kernel.errors import DomainError, Reason
from server.mongo.client import connect
from server.mongo.database import Database
from tests.resources.calls import change, get, make, refused, values
from tests.resources.conftest import Catalog
from tests.resources.declared import FEATURE
from tests.serving import new_key

ROUNDS = 25


@pytest.fixture
async def other(catalog: Catalog, mongo_url: str) -> AsyncIterator[Catalog]:
    """The same catalog by a connection of its own, as another process has it."""
    async with await connect(mongo_url) as client:
        yield Catalog(Database(client, catalog.database.name), catalog.clock)


async def both(one: Awaitable[Any], two: Awaitable[Any]) -> list[Any]:
    """What came of each: an answer or its refusal."""
    results: list[Any] = list(await asyncio.gather(one, two, return_exceptions=True))
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, DomainError):
            raise result
    return results


def reasons(results: list[Any]) -> list[Reason]:
    return [one.reason for one in results if isinstance(one, DomainError)]


@pytest.mark.parametrize("verb", ["Purge", "Delete"])
async def test_a_row_does_not_go_beside_a_new_reference(
    catalog: Catalog, other: Catalog, verb: str
) -> None:
    going: Any = getattr(pb, f"{verb}FeatureRequest")
    for round_ in range(ROUNDS):
        parent = await make(catalog, f"parent{round_}")
        child = pb.Feature(name="child", value=f"child{round_}", parent_id=parent.id)
        refusals = reasons(
            await both(
                catalog.call(going(id=parent.id)),
                other.call(pb.CreateFeatureRequest(feature=child)),
            )
        )
        assert refusals in ([Reason.STILL_REFERENCED], [Reason.REFERENCE_NOT_FOUND])
        listed = await values(catalog, filter=f"parent_id = {parent.id}")
        assert bool(listed) == (refusals == [Reason.STILL_REFERENCED])


async def test_a_row_does_not_come_back_under_one_that_goes(
    catalog: Catalog, other: Catalog
) -> None:
    for round_ in range(ROUNDS):
        feature = await make(catalog, f"f{round_}")
        endpoint = endpoint_pb.FeatureEndpoint(
            feature_id=feature.id, name="Send", value=f"e{round_}"
        )
        made = await catalog.call(
            endpoint_pb.CreateFeatureEndpointRequest(feature_endpoint=endpoint)
        )
        row_id = made.feature_endpoint.id
        await catalog.call(endpoint_pb.DeleteFeatureEndpointRequest(id=row_id))
        refusals = reasons(
            await both(
                catalog.call(pb.DeleteFeatureRequest(id=feature.id)),
                other.call(endpoint_pb.RestoreFeatureEndpointRequest(id=row_id)),
            )
        )
        assert refusals in ([Reason.STILL_REFERENCED], [Reason.REFERENCE_NOT_FOUND])


async def test_a_value_is_given_once(catalog: Catalog, other: Catalog) -> None:
    for round_ in range(ROUNDS):
        feature = pb.Feature(name="x", value=f"v{round_}")
        request = pb.CreateFeatureRequest(feature=feature)
        results = await both(catalog.call(request), other.call(request))
        (lost,) = [one for one in results if isinstance(one, DomainError)]
        (won,) = [one for one in results if not isinstance(one, DomainError)]
        assert lost.reason is Reason.ALREADY_EXISTS
        assert lost.metadata == {"field": "value", "id": won.feature.id}


async def test_an_etag_admits_one(catalog: Catalog, other: Catalog) -> None:
    made = await make(catalog, "chat")
    for round_ in range(ROUNDS):
        etag = str(round_ + 1)
        results = await both(
            change(catalog, made, "name", name=f"a{round_}", etag=etag),
            change(other, made, "name", name=f"b{round_}", etag=etag),
        )
        assert reasons(results) == [Reason.ETAG_MISMATCH]


async def test_changes_of_different_fields_are_both_kept(catalog: Catalog, other: Catalog) -> None:
    made = await make(catalog, "chat")
    for round_ in range(1, ROUNDS):
        await both(
            change(catalog, made, "name", name=f"n{round_}"),
            change(other, made, "sequence", sequence=round_),
        )
        row = await get(catalog, made)
        assert (row.name, row.sequence) == (f"n{round_}", round_)


async def test_a_request_id_takes_effect_once(catalog: Catalog, other: Catalog) -> None:
    for round_ in range(ROUNDS):
        feature = pb.Feature(name="x", value=f"v{round_}")
        request = pb.CreateFeatureRequest(request_id=new_key(), feature=feature)
        one, two = await both(catalog.call(request), other.call(request))
        assert one == two
    assert len(await values(catalog, page_size=100)) == ROUNDS


async def test_many_who_rely_on_one_row_all_come_in(catalog: Catalog) -> None:
    parent = await make(catalog, "parent")
    await asyncio.gather(*(make(catalog, f"f{i}", parent_id=parent.id) for i in range(32)))
    assert len(await values(catalog, filter=f"parent_id = {parent.id}")) == 32


async def test_whoever_keeps_losing_is_told(
    catalog: Catalog, other: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await make(catalog, "chat")
    monkeypatch.setattr("server.resources.engine.BACKOFF_SECONDS", 0)

    async def interfere(changes: Any) -> Any:
        # It reads, and before it writes another has written.
        rows = await changes.get(FEATURE, [ObjectId(made.id)])
        await change(other, made, "name", name=new_key())
        return await changes.update(FEATURE, rows[0], {**rows[0], "name": "mine"})

    with refused(Reason.CONTENTION, attempts=5):
        request = pb.UpdateFeatureRequest()
        await catalog.resources.run(request, pb.UpdateFeatureResponse, interfere, "tests")
