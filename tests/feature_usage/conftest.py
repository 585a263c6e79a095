"""Streams end with their test."""

from collections.abc import AsyncIterator

import pytest

from tests.ledger.calls import Ingest


@pytest.fixture(autouse=True)
async def _streams() -> AsyncIterator[None]:
    yield
    await Ingest.close_all()
