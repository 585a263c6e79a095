"""Keeping interactions: each once, whatever way and however often it comes."""

from collections.abc import Sequence
from typing import TypeAlias

from bson import ObjectId
from zaaz.credits.v1 import usage_service_pb2 as pb

from server.credits.feature_usage.model import FeatureUsage
from server.credits.feature_usage.reader import FeatureUsageReader
from server.credits.feature_usage.store import FeatureUsageStore
from server.credits.freshness import Freshness, rests_on_books
from server.kernel.clock import Clock
from server.kernel.errors import DomainError
from server.ledger.refusals import unavailable
from server.mongo.errors import DatabaseUnavailable

Kept: TypeAlias = ObjectId | DomainError
"""What became of an interaction: the id of its row, or its refusal."""


class FeatureUsageLogs:
    """Keeps what the usage stream and RecordFeatureUsage bring."""

    def __init__(
        self,
        reader: FeatureUsageReader,
        store: FeatureUsageStore,
        freshness: Freshness,
        clock: Clock,
    ) -> None:
        self._reader = reader
        self._freshness = freshness
        self._store = store
        self._clock = clock

    async def keep(self, client_id: str, frame: pb.UsageFrame) -> list[Kept]:
        """What became of each of the frame's feature_events; those with an id are durable then.

        DEPENDENCY_UNAVAILABLE: some may be kept, and sending them again does no harm.
        """
        if not frame.feature_events:
            return []
        read = await self._reader.rows(client_id, frame)
        if any(isinstance(row, DomainError) and rests_on_books(row) for row in read):
            await self._freshness.renew()
            read = await self._reader.rows(client_id, frame)
        rows = [row for row in read if isinstance(row, FeatureUsage)]
        if rows:
            await self._insert(rows)
        return [row.id if isinstance(row, FeatureUsage) else row for row in read]

    async def _insert(self, rows: Sequence[FeatureUsage]) -> None:
        try:
            await self._store.insert(rows, self._clock())
        except DatabaseUnavailable as error:
            raise unavailable() from error
