"""Which features were sold with a package, by its snapshot: what wallets point at."""

import asyncio
import time
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Final, Protocol

from bson import ObjectId

MAX_SNAPSHOTS: Final = 1_024
"""Snapshots that are kept in memory, of at most 500 features each: the last that were asked for."""

MAX_MISSING: Final = 1_024
"""Snapshots that are remembered not to be there."""

MAX_READ: Final = 100
"""Snapshots that one query asks for."""

MISSING_SECONDS: Final = 0.5
"""For how long one that was not there is taken not to be there."""

Included = frozenset[ObjectId]
"""Ids of features."""


class Snapshots(Protocol):
    """Where snapshots are read."""

    async def included(self, history_ids: Collection[ObjectId]) -> Mapping[ObjectId, Included]:
        """The features of those that there are. DatabaseUnavailable."""


class Inclusions:
    """The features of snapshots. These never change, so none is ever too old."""

    def __init__(self, snapshots: Snapshots, max_snapshots: int = MAX_SNAPSHOTS) -> None:
        self._snapshots = snapshots
        self._max_snapshots = max_snapshots
        self._known: dict[ObjectId, Included] = {}
        self._missing: dict[ObjectId, float] = {}
        self._wanted: dict[ObjectId, None] = {}
        self._reading = asyncio.Lock()

    def find(self, history_id: ObjectId) -> Included | None:
        """The features of a snapshot, if they are in memory."""
        included = self._known.pop(history_id, None)
        if included is not None:
            # Out and in again: the order is that of the questions.
            self._known[history_id] = included
            return included
        until = self._missing.get(history_id, 0.0)
        return frozenset() if time.monotonic() < until else None

    async def load(self, history_id: ObjectId) -> Included:
        """The same, read if need be; nothing where there is no such snapshot. DatabaseUnavailable.

        Those who ask while one reads are answered by the next reading together.
        """
        self._wanted[history_id] = None
        try:
            async with self._reading:
                included = self.find(history_id)
                return await self._read(history_id) if included is None else included
        finally:
            self._wanted.pop(history_id, None)

    async def renew(self) -> None:
        """What was not there is looked for again."""
        # One who reads just now may have looked too early: what that comes to is waited for.
        async with self._reading:
            self._missing.clear()

    async def _read(self, history_id: ObjectId) -> Included:
        others = islice((one for one in self._wanted if one != history_id), MAX_READ - 1)
        wanted = [history_id, *others]
        found = await self._snapshots.included(wanted)
        until = time.monotonic() + MISSING_SECONDS
        for one in wanted:
            self._wanted.pop(one, None)
            if one in found:
                self._known[one] = found[one]
            else:
                self._missing[one] = until
        _trim(self._known, self._max_snapshots)
        _trim(self._missing, MAX_MISSING)
        return found.get(history_id, frozenset())


def _trim(cache: dict[ObjectId, Included] | dict[ObjectId, float], bound: int) -> None:
    for key in list(islice(cache, max(0, len(cache) - bound))):
        del cache[key]
