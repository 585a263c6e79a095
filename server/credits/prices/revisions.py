"""The number of the last change of prices: what books are compared by, and rows ordered by.

Every change takes the next number in its own transaction, so changes are in one
order, whichever process made them and whatever its clock says.
"""

from collections.abc import Mapping
from typing import Any, Final

from pymongo.read_concern import ReadConcern

from server.mongo.database import Database
from server.mongo.errors import reachable
from server.mongo.schema import Collection, Index
from server.mongo.transaction import Tx
from server.resources.changes import Changes

PRICE_REVISIONS: Final = "price_revisions"
COLLECTIONS: Final = (Collection(PRICE_REVISIONS),)
BY_REVISION: Final = (Index((("revision", 1),)),)
"""What finds the history rows of the changes since another one."""

_ID: Final = "prices"
_FIELD: Final = "revision"


async def bump(tx: Tx) -> int:
    """The number of this change. Of two at once, one loses its transaction and takes the next."""
    query = {"_id": _ID}
    await tx.update(PRICE_REVISIONS, [{"q": query, "u": {"$inc": {"revision": 1}}, "upsert": True}])
    (found,) = await tx.find(PRICE_REVISIONS, query)
    return int(found["revision"])


async def number(changes: Changes) -> int:
    """The number of this change, which goes on all its history rows."""
    if _FIELD not in changes.stamp:
        changes.stamp[_FIELD] = await bump(changes.tx)
    return int(changes.stamp[_FIELD])


async def read_revision(database: Database) -> int:
    """The last change's number; 0 before the first."""
    collection = database.collection(PRICE_REVISIONS)
    with reachable():
        settled = collection.with_options(read_concern=ReadConcern("majority"))
        found = await settled.find_one({"_id": _ID})
    return 0 if found is None else int(found["revision"])


def written_order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Sorts history rows by when they were written.

    By the change's number; what one change writes of one row is in the order of
    its effective times. The id only makes the order of equal ones the same
    for everybody.
    """
    return (row["revision"], row["effective_time"], row["_id"])
