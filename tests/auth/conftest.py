from collections.abc import Callable

import pytest

from server.auth.service import AuthService
from server.auth.store import COLLECTIONS
from server.mongo.database import Database

START_TIME = 1_800_000_000_000


class ManualClock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = START_TIME

    def __call__(self) -> int:
        return self.now

    def advance(self, milliseconds: int) -> None:
        self.now += milliseconds


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


NewService = Callable[..., AuthService]


@pytest.fixture
async def new_service(database: Database, clock: ManualClock) -> NewService:
    """Makes services on one database: each is what another process would be."""
    await database.prepare(COLLECTIONS)
    return lambda secret="a server secret": AuthService(database, secret, clock)


@pytest.fixture
async def service(new_service: NewService) -> AuthService:
    return new_service()
