"""One worker of a name at a time, among all processes of a database.

A lease is a convenience: it spares work. Whoever holds it may be wrong about
that (a clock, a pause), so what is done under it has to be right without it.
"""

from typing import Any

from bson.datetime_ms import DatetimeMS
from pymongo.errors import DuplicateKeyError

from server.kernel.clock import Clock
from server.kernel.ids import new_id
from server.mongo.database import Database
from server.mongo.errors import reachable
from server.mongo.schema import Collection

LEASES = "worker_leases"
COLLECTIONS = (Collection(LEASES),)

LEASE_MS = 30_000
"""How long after its holder's death another takes over."""


class Lease:
    """A name's lease: held while `hold` says so, and renewed by it. DatabaseUnavailable."""

    def __init__(self, database: Database, name: str, clock: Clock) -> None:
        self._rows = database.collection(LEASES)
        self._name = name
        self._clock = clock
        self._owner = new_id()

    async def hold(self) -> bool:
        """Takes or renews it. False: another has it."""
        now_ms = self._clock()
        free = {"$or": [{"until": {"$lte": DatetimeMS(now_ms)}}, {"owner": self._owner}]}
        taken = {"owner": self._owner, "until": DatetimeMS(now_ms + LEASE_MS)}
        try:
            with reachable():
                await self._rows.update_one(
                    {"_id": self._name, **free}, {"$set": taken}, upsert=True
                )
        except DuplicateKeyError:
            return False
        return True

    async def position(self) -> Any:
        """Where the last holder was; None: at the beginning."""
        with reachable():
            row = await self._rows.find_one({"_id": self._name})
        return None if row is None else row.get("position")

    async def note(self, position: object) -> None:
        """Remembers where its holder is, for the next one."""
        with reachable():
            await self._rows.update_one(
                {"_id": self._name, "owner": self._owner}, {"$set": {"position": position}}
            )

    async def give_up(self) -> None:
        """Lets the next one have it at once."""
        with reachable():
            await self._rows.update_one(
                {"_id": self._name, "owner": self._owner}, {"$set": {"until": DatetimeMS(0)}}
            )
