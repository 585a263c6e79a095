from collections.abc import Callable

import pytest

from server.auth.service import AuthService
from server.auth.store import COLLECTIONS
from server.mongo.database import Database
from tests.serving import ManualClock


@pytest.fixture
def clock(manual_clock: ManualClock) -> ManualClock:
    return manual_clock


NewService = Callable[..., AuthService]


@pytest.fixture
async def new_service(database: Database, clock: ManualClock) -> NewService:
    """Makes services on one database: each is what another process would be."""
    await database.prepare(COLLECTIONS)
    return lambda secret="a server secret": AuthService(database, secret, clock)


@pytest.fixture
async def service(new_service: NewService) -> AuthService:
    return new_service()
