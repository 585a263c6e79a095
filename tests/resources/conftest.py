"""Features and their endpoints, declared as small as they may be, on a real database."""

from typing import Any

import pytest
from zaaz.catalog.v1 import catalog_service_pb2
from zaaz.catalog.v1.catalog_service_pb2_grpc import CatalogServiceServicer

from server.kernel.paging import PageTokens
from server.kernel.principal import ADMIN, Principal, set_principal
from server.mongo.database import Database
from server.resources.binder import bind
from server.resources.engine import Resources
from server.resources.table import COLLECTIONS, collections
from tests.resources.declared import ENDPOINT, FEATURE
from tests.serving import SECRET, ManualClock

CATALOG = catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"]


class Catalog:
    """A catalog as the edge sees it, its engine, and what was told of changes."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.database = database
        self.clock = clock
        self.resources = Resources(database, clock, PageTokens(SECRET), (FEATURE, ENDPOINT))
        servicer: Any = CatalogServiceServicer
        self.rpc: Any = servicer()
        self.refreshed = 0
        self.resources.on_change(self._refresh, FEATURE)
        bind(self.rpc, CATALOG, self.resources, FEATURE, ENDPOINT)

    async def _refresh(self) -> None:
        self.refreshed += 1

    async def call(self, request: Any) -> Any:
        """The RPC that takes this request, called by client `tests`."""
        set_principal(Principal("tests", "0" * 24, frozenset({ADMIN})))
        name = request.DESCRIPTOR.name.removesuffix("Request")
        return await getattr(self.rpc, name)(request, None)


@pytest.fixture
async def catalog(database: Database, manual_clock: ManualClock) -> Catalog:
    """An empty catalog, by a clock that the test moves."""
    await database.prepare((*COLLECTIONS, *collections(FEATURE), *collections(ENDPOINT)))
    return Catalog(database, manual_clock)
