"""Snapshots of packages: what each was sold as, written with every change, and never changed.

A package's row has `newest_history`, {history_id, content_sha256}, beside what its message shows:
what the present is compared with.
"""

import asyncio
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from bson import ObjectId
from zaaz.catalog.v1.package_history_pb2 import PackageHistory

from server.catalog.packages.parts import FEATURES, PACKAGES, PLANS, Part, packages_with, parts_of
from server.kernel.ids import new_id
from server.resources.changes import Changes
from server.resources.codec import Codec

PACKAGE_HISTORIES: Final = "package_histories"

PACKAGES_AT_ONCE: Final = 10
"""Packages whose snapshots are made in one go: a part may be in 100, of hundreds of parts each."""

Document = dict[str, Any]

_CODEC: Final = Codec(PackageHistory)
_STAMP: Final = frozenset(("id", "content_sha256", "created_time", "client_id"))
_CONTENT: Final = frozenset(PackageHistory.DESCRIPTOR.fields_by_name) - _STAMP


def snapshots(changes: Changes) -> "Snapshots":
    """Those that the transaction will end with."""
    return changes.at_end(PACKAGE_HISTORIES, Snapshots())


async def keep_history(
    changes: Changes, part: Part, new: Document | None, old: Document | None
) -> None:
    """For the guard of a part: a snapshot of every package that has it. FIELD_INVALID.

    One that comes or goes is in none: what refers to it is live only while it is.
    """
    if new is not None and old is not None:
        for package_id in await packages_with(changes, part, new["_id"]):
            snapshots(changes).of(package_id)


class Snapshots:
    """An ending: the packages that a transaction has changed, in any of their parts."""

    def __init__(self) -> None:
        self._ids: dict[ObjectId, ObjectId] = {}
        self._purged: dict[ObjectId, Document] = {}

    def of(self, package_id: ObjectId) -> ObjectId:
        """The id of the snapshot that the package will have."""
        return self._ids.setdefault(package_id, new_id())

    def purged(self, row: Document) -> None:
        """A package that will not be there any more, by its row as it was."""
        self._purged[row["_id"]] = {**row, "is_deleted": True}
        self.of(row["_id"])

    async def __call__(self, changes: Changes) -> None:
        """Writes those whose content has changed, and has the packages point at them.

        Writing the package's row loses to whoever else has changed a part of it, so that no
        snapshot misses what another transaction brought.
        """
        ids = list(self._ids)
        for start in range(0, len(ids), PACKAGES_AT_ONCE):
            some = ids[start : start + PACKAGES_AT_ONCE]
            found = await changes.tx.find(PACKAGES, {"_id": {"$in": some}})
            gone = {one: self._purged[one] for one in some if one in self._purged}
            await self._keep(changes, gone | {row["_id"]: row for row in found})

    async def _keep(self, changes: Changes, packages: Mapping[ObjectId, Document]) -> None:
        features = await parts_of(changes, FEATURES, packages)
        plans = await parts_of(changes, PLANS, packages)
        rows, updates = [], []
        for package_id, package in packages.items():
            # Hundreds of features each: others have their turn in between.
            await asyncio.sleep(0)
            parts = {"features": features.get(package_id, []), "plans": plans.get(package_id, [])}
            content = {**_own(package), "package_id": package_id, **parts}
            newest, digest = package.get("newest_history"), _digest(content)
            if newest is None or newest["content_sha256"] != digest:
                newest = {"history_id": self._ids[package_id], "content_sha256": digest}
                stamp = {"created_time": changes.now, "client_id": changes.stamp["client_id"]}
                identity = {"_id": newest["history_id"], "content_sha256": digest}
                rows.append({**identity, **content, **stamp})
            elif package["history_id"] == newest["history_id"]:
                continue
            fields = {"history_id": newest["history_id"], "newest_history": newest}
            update = {"$set": fields, "$inc": {"guard": 1}}
            updates.append({"q": {"_id": package_id}, "u": update})
        await changes.tx.insert(PACKAGE_HISTORIES, rows)
        await changes.tx.update(PACKAGES, updates)
        if updates:
            changes.changed |= {PACKAGES, PACKAGE_HISTORIES}


def _own(package: Document) -> Document:
    return {name: value for name, value in package.items() if name in _CONTENT}


def _digest(content: Document) -> str:
    """SHA-256 of the content as a message, by the deterministic encoding."""
    message: PackageHistory = _CODEC.decode(content)
    return sha256(message.SerializeToString(deterministic=True)).hexdigest()
