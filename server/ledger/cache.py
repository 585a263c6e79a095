"""Wallets and stream writers as this process believes them to be stored.

A belief, not a promise: what is written from it is guarded by the version (a
writer's epoch and offset) that it started from, and what was lost is forgotten.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from itertools import chain, islice
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

MAX_COMPARED = 1_000
"""Wallets, or versions of them, that one query asks for."""


class StateCache:
    """Bounded; what was written longest ago goes first."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self._wallets: dict[str, Wallet] = {}
        self._writers: dict[str, Writer] = {}
        self._ended_holds: dict[ObjectId, HoldRow] = {}
        self._looks = _Looks()
        self._reads = _Reads(store)

    def known(self, user_id: str) -> Wallet | None:
        """A wallet as it is in memory, if it is."""
        return self._wallets.get(user_id)

    async def peek(self, user_id: str, *, fresh: bool) -> Wallet | None:
        """A wallet as it is believed to be, what is being written included.

        `fresh`: other processes' writes count too; else at most PEEK_SECONDS late.
        """
        wallet = self._wallets.get(user_id)
        now = time.monotonic()
        if wallet is not None and not fresh and self._looks.is_recent(user_id, now):
            return wallet
        # Of those that others keep looking at, one query says which have changed.
        await self._compare(self._looks.due(now))
        stored = await self._reads.wallet(user_id)
        if stored is None:
            return None
        self._looks.note(user_id, now)
        # A batch that loaded or left it meanwhile may know better.
        wallet = self._wallets.get(user_id)
        if wallet is None or wallet.version < stored.version:
            wallet = self._wallets[user_id] = stored
            _trim(self._wallets, MAX_CACHED_WALLETS)
        return wallet

    async def _compare(self, user_ids: Sequence[str]) -> None:
        """Drops those of the wallets that another process has written since."""
        if not user_ids:
            return
        now = time.monotonic()
        for user_id, version in (await self._store.versions(set(user_ids))).items():
            wallet = self._wallets.get(user_id)
            if wallet is not None and wallet.version < version:
                del self._wallets[user_id]
            else:
                self._looks.note(user_id, now)

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


class _Reads:
    """Reads wallets for many at once: who asks while a query is on its way shares the next."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self._waiting: dict[str, list[asyncio.Future[Wallet | None]]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def wallet(self, user_id: str) -> Wallet | None:
        """The wallet as it is stored after this was called. DatabaseUnavailable."""
        future: asyncio.Future[Wallet | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(user_id, []).append(future)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all())
        return await future

    async def _read_all(self) -> None:
        try:
            while self._waiting:
                some = list(islice(self._waiting, MAX_COMPARED))
                await self._read({user_id: self._waiting.pop(user_id) for user_id in some})
        finally:
            self._reading = None

    async def _read(self, asked: Mapping[str, Sequence[asyncio.Future[Wallet | None]]]) -> None:
        try:
            stored = await self._store.wallets(asked)
        except Exception as error:  # noqa: BLE001  every caller is told, and raises it
            for future in chain.from_iterable(asked.values()):
                if not future.done():
                    future.set_exception(error)
            return
        for user_id, futures in asked.items():
            for future in futures:
                # One whose caller has gone is done already.
                if not future.done():
                    future.set_result(stored.get(user_id))


class _Looks:
    """Which wallets are looked at, and when each was last compared with what is stored."""

    def __init__(self) -> None:
        self._read_at: dict[str, float] = {}
        self._wanted: set[str] = set()

    def is_recent(self, user_id: str, now: float) -> bool:
        """Whether the wallet need not be read again; somebody looks at it."""
        read_at = self._read_at.get(user_id)
        if read_at is None or now - read_at >= PEEK_SECONDS:
            return False
        self._wanted.add(user_id)
        return True

    def note(self, user_id: str, now: float) -> None:
        """The wallet is as it was stored then."""
        # Out and in again: the order is that of the readings.
        self._read_at.pop(user_id, None)
        self._read_at[user_id] = now
        _trim(self._read_at, MAX_CACHED_WALLETS)
        if len(self._wanted) > len(self._read_at):
            self._wanted.intersection_update(self._read_at)

    def due(self, now: float) -> list[str]:
        """Those that were looked at since they were read, and are to be compared soon."""
        half = PEEK_SECONDS / 2
        old = []
        for user_id in islice(self._read_at, MAX_COMPARED):
            if now - self._read_at[user_id] < half:
                break
            old.append(user_id)
        for user_id in old:
            del self._read_at[user_id]
        due = [user_id for user_id in old if user_id in self._wanted]
        self._wanted.difference_update(due)
        for user_id in due:
            # Until it is compared, which takes a moment, it may be looked at as it is.
            self._read_at[user_id] = now - half
        return due


def _trim(cache: dict[Any, Any], bound: int) -> None:
    for key in list(islice(cache, max(0, len(cache) - bound))):
        del cache[key]
