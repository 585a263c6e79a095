"""The collections `outbox` and `dead_letters`: claiming rows, and what becomes of them.

Progress is marked on the rows: a consumer that has handled one is taken out of
its `undone`, and a row with none left is deleted. There is no cursor:
transactions that overlap commit in another order than they began, and a cursor
over ids or times passes by the earlier one.

`due_time` is both the pause after a failure and the lease of a claim: a row
that was claimed by a process that died is due again when its lease is over, and
one that its writer hands over to its own dispatcher is so from the start.

Claims and marks need not survive a crash or a failover (the worst is a second
delivery), so they don't wait for the disk, which the ledger needs; and to see
them at once, rows are looked up by what this primary knows. Whether a row
itself is safe from a failover is asked before it is handed out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from pymongo import WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.read_concern import ReadConcern

from server.kernel.clock import DAY_MS, Clock
from server.kernel.ids import derived_id, new_id
from server.messaging.consumers import Message
from server.messaging.outbox import OUTBOX
from server.mongo.database import Database
from server.mongo.schema import Collection, Index

DEAD_LETTERS = "dead_letters"
DEAD_LETTER_DAYS = 30
LEASE_MS = 30_000
MAX_REASON_CHARACTERS = 1_000
_LEFTOVER_SECONDS = 3_600

COLLECTIONS: tuple[Collection, ...] = (
    Collection(
        OUTBOX,
        (
            Index((("undone.consumer", 1), ("undone.due_time", 1))),
            # What a crash leaves between taking the last consumer out and deleting the row.
            Index(
                (("done_time", 1),),
                partial={"done_time": {"$exists": True}},
                expire_after_seconds=_LEFTOVER_SECONDS,
            ),
        ),
    ),
    Collection(
        DEAD_LETTERS,
        (
            Index((("consumer", 1), ("dead_time", 1))),
            Index((("expires_time", 1),), expire_after_seconds=0),
        ),
    ),
)

_HINT = {"undone.consumer": 1, "undone.due_time": 1}
_EMPTY = {"done_time": {"$exists": True}}


@dataclass(frozen=True, slots=True)
class Claim:
    """Messages that one consumer has for itself until `until` (milliseconds)."""

    consumer: str
    lease: ObjectId
    until: int
    messages: tuple[Message, ...]


class OutboxStore:
    """Every method raises the driver's errors; a transaction's are TransactionLost and so on."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        # Claims and marks are made and seen without waiting for a majority.
        self._rows = database.collection(OUTBOX).with_options(
            read_concern=ReadConcern("local"), write_concern=WriteConcern(w=1)
        )
        self._committed = database.collection(OUTBOX).with_options(
            read_concern=ReadConcern("majority")
        )

    async def claim(self, consumer: str, limit: int) -> Claim:
        """Up to `limit` rows that are due for `consumer`, the longest due first."""
        now = self._clock()
        claim = Claim(consumer, new_id(), now + LEASE_MS, ())
        due = {"consumer": consumer, "due_time": {"$lte": DatetimeMS(now)}}
        cursor = self._rows.find({"undone": {"$elemMatch": due}}).hint(_HINT).limit(limit)
        rows = {row["_id"]: row for row in await cursor.to_list()}
        if not rows:
            return claim
        leased = {"undone.$.due_time": DatetimeMS(claim.until), "undone.$.lease": claim.lease}
        result = await self._rows.update_many(
            {"_id": {"$in": list(rows)}, "undone": {"$elemMatch": due}}, {"$set": leased}
        )
        ids = list(rows)
        if result.matched_count < len(rows):
            # Another process was quicker with some.
            ids = await _ids(self._rows, _owned(ids, claim))
        return await self._confirmed(claim, [rows[row_id] for row_id in ids])

    async def _confirmed(self, claim: Claim, rows: Sequence[Mapping[str, Any]]) -> Claim:
        """The claim with those rows that no failover can take back; the others are for later."""
        asked = [row["_id"] for row in rows]
        safe = set(await _ids(self._committed, {"_id": {"$in": asked}}))
        await self.release(claim, [row_id for row_id in asked if row_id not in safe])
        messages = [message_of(row, claim.consumer) for row in rows if row["_id"] in safe]
        return replace(claim, messages=tuple(messages))

    async def done(self, claim: Claim, ids: Sequence[ObjectId]) -> None:
        """Take the consumer out of these rows; delete those that nobody is left in."""
        if not ids:
            return
        mine = {"_id": {"$in": list(ids)}, "undone.consumer": claim.consumer}
        deleted = await self._rows.delete_many({**mine, "undone": {"$size": 1}})
        if deleted.deleted_count < len(ids):
            await self._rows.update_many(mine, _without(claim.consumer))
            await self._rows.delete_many({"_id": {"$in": list(ids)}, **_EMPTY})

    async def retry(self, claim: Claim, message: Message, pause_ms: int) -> None:
        """One more failed attempt: due again after the pause, if the row is still ours."""
        await self._rows.update_one(
            _owned([message.id], claim),
            {
                "$set": {"undone.$.due_time": DatetimeMS(self._clock() + pause_ms)},
                "$inc": {"undone.$.attempts": 1},
                "$unset": {"undone.$.lease": ""},
            },
        )

    async def release(self, claim: Claim, ids: Sequence[ObjectId]) -> None:
        """Give rows back that were not begun."""
        if ids:
            await self._rows.update_many(
                _owned(ids, claim),
                {
                    "$set": {"undone.$.due_time": DatetimeMS(self._clock())},
                    "$unset": {"undone.$.lease": ""},
                },
            )

    async def bury(self, claim: Claim, message: Message, reason: str) -> bool:
        """Move a message to the dead letters, all at once; False if the row is ours no more."""
        dead = self._dead_letter(claim, message, reason)
        async with self._database.transaction() as tx:
            update = {"q": _owned([message.id], claim), "u": _without(claim.consumer)}
            if not await tx.update(OUTBOX, [update]):
                return False
            await tx.update(DEAD_LETTERS, [{"q": {"_id": dead["_id"]}, "u": dead, "upsert": True}])
            await tx.delete(OUTBOX, [{"_id": message.id, **_EMPTY}])
        return True

    def _dead_letter(self, claim: Claim, message: Message, reason: str) -> dict[str, Any]:
        now = self._clock()
        return {
            "_id": derived_id(str(message.id), claim.consumer),
            "consumer": claim.consumer,
            "message_id": message.id,
            "topic": message.topic,
            "key": message.key,
            "payload": message.payload,
            "reason": reason[:MAX_REASON_CHARACTERS],
            "attempts": message.attempts + 1,
            "created_time": DatetimeMS(message.created_time),
            "dead_time": DatetimeMS(now),
            "expires_time": DatetimeMS(now + DEAD_LETTER_DAYS * DAY_MS),
        }


async def _ids(rows: AsyncCollection[dict[str, Any]], wanted: Mapping[str, Any]) -> list[ObjectId]:
    return [row["_id"] for row in await rows.find(wanted, {"_id": 1}).to_list()]


def _owned(ids: Sequence[ObjectId], claim: Claim) -> dict[str, Any]:
    ours = {"consumer": claim.consumer, "lease": claim.lease}
    return {"_id": {"$in": list(ids)}, "undone": {"$elemMatch": ours}}


def _without(consumer: str) -> list[dict[str, Any]]:
    """The update that takes a consumer out and marks a row that nobody is left in."""
    others = {"$ne": ["$$this.consumer", {"$literal": consumer}]}
    return [
        {"$set": {"undone": {"$filter": {"input": "$undone", "cond": others}}}},
        {"$set": {"done_time": {"$cond": [{"$eq": ["$undone", []]}, "$$NOW", "$$REMOVE"]}}},
    ]


def message_of(row: Mapping[str, Any], consumer: str) -> Message:
    """The row as its consumer is given it."""
    mine = next(entry for entry in row["undone"] if entry["consumer"] == consumer)
    created = row["created_time"]
    return Message(
        id=row["_id"],
        topic=row["topic"],
        key=row["key"],
        payload=row["payload"],
        # A row that was read has a datetime, one that was made here what was written.
        created_time=int(created if isinstance(created, DatetimeMS) else DatetimeMS(created)),
        attempts=mine["attempts"],
    )
