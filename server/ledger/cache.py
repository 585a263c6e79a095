"""Wallets and stream writers as this process believes them to be stored.

A belief, not a promise: what is written from it is guarded by the version (a
writer's epoch and offset) that it started from, and what was lost is forgotten.
"""

import time
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from bson import ObjectId

from server.ledger.draft import Draft, HoldRow
from server.ledger.jobs import Job
from server.ledger.model import HoldState, Wallet, Writer
from server.ledger.store import LedgerStore

MAX_CACHED_WALLETS = 200_000
MAX_CACHED_WRITERS = 10_000
MAX_CACHED_HOLDS = 20_000
"""Holds that ended lately: word of one may come before its end is stored."""

PEEK_SECONDS = 2.0
"""For how long a wallet that is only looked at is taken to be as it was stored last.

Writes need no such bound: what another process has written makes them fail.
"""


class StateCache:
    """Bounded; what was written longest ago goes first."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self._wallets: dict[str, Wallet] = {}
        self._writers: dict[str, Writer] = {}
        self._ended_holds: dict[ObjectId, HoldRow] = {}
        self._read_at: dict[str, float] = {}

    async def peek(self, user_id: str, *, fresh: bool) -> Wallet | None:
        """A wallet as it is believed to be, what is being written included.

        `fresh`: other processes' writes count too; else at most PEEK_SECONDS late.
        """
        wallet = self._wallets.get(user_id)
        now = time.monotonic()
        if wallet is not None and not fresh:
            read_at = self._read_at.get(user_id)
            if read_at is not None and now - read_at < PEEK_SECONDS:
                return wallet
        stored = (await self._store.wallets([user_id])).get(user_id)
        if stored is None:
            return None
        self._read_at.pop(user_id, None)
        self._read_at[user_id] = now
        _trim(self._read_at, MAX_CACHED_WALLETS)
        # A batch that loaded or left it meanwhile may know better.
        wallet = self._wallets.get(user_id)
        if wallet is None or wallet.version < stored.version:
            wallet = self._wallets[user_id] = stored
        return wallet

    async def ended_holds(
        self, jobs: Sequence[Job[Any]], wallets: Mapping[str, Wallet]
    ) -> dict[ObjectId, HoldRow]:
        """What became of holds that the jobs name and the wallets no longer have."""
        wanted = {
            hold_id
            for job in jobs
            for user_id, hold_id in job.hold_ids
            if user_id in wallets and all(hold.id != hold_id for hold in wallets[user_id].holds)
        }
        if not wanted:
            return {}
        found = {i: self._ended_holds[i] for i in wanted if i in self._ended_holds}
        return found | await self._store.holds(wanted - found.keys())

    async def wallets(self, jobs: Sequence[Job[Any]]) -> dict[str, Wallet]:
        """The wallets that the jobs need, by user; those that do not exist are left out."""
        user_ids = {user_id for job in jobs for user_id in job.user_ids}
        cached = self._wallets
        wallets = {user_id: cached[user_id] for user_id in user_ids if user_id in cached}
        missing = user_ids - wallets.keys()
        if missing:
            loaded = await self._store.wallets(missing)
            cached.update(loaded)
            wallets.update(loaded)
        return wallets

    async def writers(self, jobs: Sequence[Job[Any]]) -> dict[str, Writer]:
        """The stream writers that the jobs move, by their keys."""
        keys = {job.writer_key for job in jobs if job.writer_key is not None}
        missing = keys - self._writers.keys()
        if missing:
            self._learn(await self._store.writers(missing))
        return {key: self._writers[key] for key in keys}

    def set_writer(self, writer: Writer) -> None:
        """Takes a writer as it was just opened."""
        self._learn({writer.key: writer})

    def remember(self, draft: Draft) -> None:
        """Takes everything as the draft will leave it."""
        before, cached = draft.before, self._wallets
        for user_id, wallet in draft.after.items():
            # Out and in again: the order is that of the writes.
            cached.pop(user_id, None)
            if user_id in before:
                wallet = wallet.at_version(before[user_id].version + 1)
            cached[user_id] = wallet
        self._learn(draft.writers)
        for hold_id, row in draft.holds.items():
            if row.change.state != HoldState.ACTIVE:
                self._ended_holds[hold_id] = row
        _trim(cached, MAX_CACHED_WALLETS)
        _trim(self._ended_holds, MAX_CACHED_HOLDS)
        _trim(self._writers, MAX_CACHED_WRITERS)

    def forget(self, draft: Draft) -> None:
        """Drops what a lost draft started from and left: both may be wrong."""
        for user_id in (*draft.before, *draft.after):
            self._wallets.pop(user_id, None)
        for key in draft.writers_before:
            self._writers.pop(key, None)
        for hold_id in draft.holds:
            self._ended_holds.pop(hold_id, None)

    def _learn(self, writers: Mapping[str, Writer]) -> None:
        """Takes writers, but none of before an opening that came in between."""
        for key, writer in writers.items():
            known = self._writers.get(key)
            if known is None or known.epoch <= writer.epoch:
                self._writers[key] = writer


def _trim(cache: dict[Any, Any], bound: int) -> None:
    for key in list(islice(cache, max(0, len(cache) - bound))):
        del cache[key]
