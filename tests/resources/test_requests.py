"""Commits whose outcome nobody knows, on a mongod that can be told to withhold answers."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol
from uuid import uuid4

import pytest
from zaaz.catalog.v1 import feature_pb2 as pb

from server.mongo.client import connect
from server.mongo.database import Database
from server.mongo.embedded import EmbeddedMongod
from server.mongo.errors import DatabaseUnavailable
from server.mongo.transaction import COMMIT_TRIES
from server.resources.table import COLLECTIONS, collections
from tests.conftest import MongoClient
from tests.resources.calls import get, values
from tests.resources.conftest import Catalog
from tests.resources.declared import ENDPOINT, FEATURE
from tests.serving import ManualClock, new_key


class Fault(Protocol):
    def __call__(self, **how: Any) -> AbstractAsyncContextManager[None]: ...


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MongoClient]:
    place = tmp_path_factory.mktemp("faulty")
    # A transaction that its client has lost is undone soon.
    parameters = {"enableTestCommands": "1", "transactionLifetimeLimitSeconds": "2"}
    mongod = EmbeddedMongod(place, cache_gigabytes=0.25, parameters=parameters)
    async with await connect(await mongod.start()) as client:
        yield client
    await mongod.stop()


@pytest.fixture
async def faulty(client: MongoClient) -> Catalog:
    database = Database(client, f"test_{uuid4().hex[:16]}")
    await database.prepare((*COLLECTIONS, *collections(FEATURE), *collections(ENDPOINT)))
    return Catalog(database, ManualClock())


@pytest.fixture
def fault(client: MongoClient) -> Fault:
    """The next COMMIT_TRIES commits, all of one transaction, fail like this."""

    async def tell(mode: object, **options: object) -> None:
        point = {"configureFailPoint": "failCommand", "mode": mode, **options}
        await client.admin.command(point)

    @asynccontextmanager
    async def failing(**how: Any) -> AsyncIterator[None]:
        data = {"failCommands": ["commitTransaction"], **how}
        await tell({"times": COMMIT_TRIES}, data=data)
        yield
        await tell("off")

    return failing


COMMITTED = {"writeConcernError": {"code": 64, "errmsg": "nobody knows"}}
"""The commit happens, and its answer says that nobody knows."""

NOT_COMMITTED = {"errorCode": 50, "errorLabels": ["UnknownTransactionCommitResult"]}
"""The commit does not happen, and its answer says that nobody knows."""


@pytest.mark.parametrize("how", [COMMITTED, NOT_COMMITTED], ids=["committed", "lost"])
async def test_with_a_request_id_it_takes_effect_once(
    faulty: Catalog, fault: Fault, how: dict[str, Any]
) -> None:
    feature = pb.Feature(name="Chat", value="chat")
    request = pb.CreateFeatureRequest(request_id=new_key(), feature=feature)
    async with fault(**how):
        answer = await faulty.call(request)
    assert await values(faulty) == ["chat"]
    assert await get(faulty, answer.feature) == answer.feature
    assert faulty.refreshed == 1
    assert await faulty.call(request) == answer


async def test_without_one_the_caller_is_told_that_nobody_knows(
    faulty: Catalog, fault: Fault
) -> None:
    feature = pb.Feature(name="Chat", value="chat")
    async with fault(**COMMITTED):
        with pytest.raises(DatabaseUnavailable):
            await faulty.call(pb.CreateFeatureRequest(feature=feature))
    assert await values(faulty) == ["chat"]
