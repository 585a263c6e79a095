"""Group commit: one transaction for all that waits, one committer for a wallet.

    take a batch -> apply it to cached wallets -> ONE transaction -> answer everyone

While a transaction is on its way the next batch is applied already, on the
wallets as that transaction will leave them; should it be lost, that work is
thrown away. Correctness never rests on the cache or on being alone: every
wallet and writer is written under its version, and every key is unique.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from server.kernel.clock import Clock
from server.kernel.errors import DomainError, Reason
from server.kernel.tasks import end
from server.ledger.cache import StateCache
from server.ledger.draft import Draft, Known
from server.ledger.jobs import Job, Posted, Request, replayed
from server.ledger.metrics import LedgerMetrics
from server.ledger.model import Wallet, Writer
from server.ledger.queue import MAX_BATCH_ENTRIES, JobQueue
from server.ledger.refusals import contention, unavailable
from server.ledger.store import LedgerStore, Writes
from server.mongo.errors import DatabaseUnavailable, TransactionLost

MAX_CONFLICTS = 3
"""Lost transactions after which a batch is divided, or a single job told CONTENTION."""

OUTAGE_PATIENCE_SECONDS = 8.0
"""How long the database may be away before callers are told. A restart takes a second.

With the driver's own waiting, a few seconds a try, they are told well within the 30 s
that calls have: DEADLINE_EXCEEDED would leave them in doubt, and waiting for nothing.
"""

OUTAGE_RETRY_SECONDS = 0.2
"""Pause between two tries in an outage. A database that refuses connections fails at once."""

SPECULATE_ENTRIES = MAX_BATCH_ENTRIES // 4
"""With so many waiting, the next batch is applied while the last is being written."""

GATHER_SECONDS = 0.004
"""How long those who wait are kept for those who were just answered."""

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
_Jobs = Sequence[Job[Any]]


class Committer:
    """Owns every write to the wallets of this process. `run` is its one loop."""

    def __init__(self, store: LedgerStore, clock: Clock, metrics: LedgerMetrics) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._queue = JobQueue()
        metrics.watch_queue(lambda: self._queue.entries)
        self._cache = StateCache(store)
        self._away_since: float | None = None

    def submit(self, job: Job[_Result]) -> asyncio.Future[_Result]:
        """The job's result once it is durable, its refusal as DomainError. OVERLOADED.

        Jobs of one kind are applied in the order of their submission. A caller
        that goes away takes back what has not been applied yet, and nothing else.
        """
        self._queue.put(job)
        return job.future

    @property
    def queue(self) -> JobQueue:
        """What waits."""
        return self._queue

    async def open_writer(self, key: str) -> Writer:
        """Takes a stream writer over and returns where it stands."""
        writer = await self._store.open_writer(key)
        self._cache.set_writer(writer)
        return writer

    async def peek(self, user_id: str, *, fresh: bool) -> Wallet | None:
        """The user's wallet as the committer has it, without waiting for what is on its way.

        What other processes write is seen soon, with `fresh` at once.
        """
        return await self._cache.peek(user_id, fresh=fresh)

    async def recall(self, user_id: str) -> Wallet | None:
        """The same as it is in memory, however old: for who has it checked by a write."""
        return self._cache.known(user_id) or await self._cache.peek(user_id, fresh=True)

    async def earlier(self, request: Request) -> Posted | None:
        """What an operation under this request came to. REQUEST_ID_REUSED; None: it was none."""
        row = (await self._store.known([request.key], ())).requests.get(request.key)
        return None if row is None else replayed(row, request)

    async def run(self) -> None:
        """Commits until cancelled."""
        flight: _Flight | None = None
        try:
            while True:
                await self._wait_for_work(flight)
                if flight is not None and flight.task.done():
                    await self._land(flight)
                    await self._gather(flight)
                    flight = None
                    continue
                jobs = self._queue.take()
                plan = await self._try_plan(jobs)
                if flight is not None and not await self._land(flight, on_top=plan):
                    plan = None
                flight = None if plan is None else self._take_off(plan)
                if plan is None:
                    await self._recover(jobs)
        finally:
            if flight is not None:
                await end(flight.task)

    async def _wait_for_work(self, flight: "_Flight | None") -> None:
        if flight is None:
            await self._queue.wait_for(1)
            return
        backlog = asyncio.ensure_future(self._queue.wait_for(SPECULATE_ENTRIES))
        try:
            await asyncio.wait({backlog, flight.task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            backlog.cancel()

    async def _gather(self, landed: "_Flight") -> None:
        """Lets callers who were just answered ask again before the next batch is taken.

        Otherwise they drift apart into ever smaller batches, each of which costs
        a transaction. Nobody waits who is alone.
        """
        waiting = self._queue.entries
        if 0 < waiting < SPECULATE_ENTRIES:
            everyone = waiting + sum(job.size for job in landed.plan.jobs)
            with suppress(TimeoutError):
                async with asyncio.timeout(GATHER_SECONDS):
                    await self._queue.wait_for(min(everyone, SPECULATE_ENTRIES))

    async def _try_plan(self, jobs: _Jobs) -> "_Plan | None":
        """The jobs applied; None when that failed."""
        try:
            return await self._plan(jobs, Known())
        except DatabaseUnavailable as lost:
            self._note_outage()
            _note_lost(lost)
        except Exception:  # noqa: BLE001  one bad batch must not end the committer
            _log.exception("a ledger batch could not be applied")
        return None

    def _take_off(self, plan: "_Plan") -> "_Flight":
        return _Flight(plan, asyncio.create_task(self._write(plan)))

    async def _write(self, plan: "_Plan") -> None:
        began = time.monotonic()
        try:
            if plan.draft.doubts:
                await self._confirm(plan.draft)
            await self._store.write(plan.writes)
        except TransactionLost as lost:
            self._metrics.lost.labels(lost.kind).inc()
            raise
        except DatabaseUnavailable:
            self._metrics.lost.labels("unavailable").inc()
            self._note_outage()
            raise
        self._away_since = None
        self._metrics.commit_seconds.observe(time.monotonic() - began)
        self._metrics.entries.inc(len(plan.draft.entries))

    async def _confirm(self, draft: Draft) -> None:
        """Looks up what refusals rest on before they are told. TransactionLost: it is not so.

        A replay may be refused for the very effect of its first run, and a cached
        wallet may be behind what another process has written.
        """
        known = await self._store.known(
            [key for doubt in draft.doubts for key in doubt.request_keys],
            [entry_id for doubt in draft.doubts for entry_id in doubt.entry_ids],
        )
        versions = await self._store.versions({doubt.user_id for doubt in draft.doubts})
        if draft.contradicts(known, versions):
            raise TransactionLost("conflict", "a refusal rested on what has changed since")

    async def _land(self, flight: "_Flight", on_top: "_Plan | None" = None) -> bool:
        """Answers a written batch. False: it was lost, and so is the plan made on top of it."""
        try:
            await flight.task
        except (TransactionLost, DatabaseUnavailable) as lost:
            _note_lost(lost)
        except Exception:  # noqa: BLE001  one bad batch must not end the committer
            _log.exception("a ledger batch could not be written")
        else:
            _answer(flight.plan.jobs)
            return True
        self._forget(flight.plan, on_top)
        await self._recover(flight.plan.jobs)
        return False

    async def _recover(self, jobs: _Jobs) -> None:
        """Runs lost jobs again: what is known to be committed is answered, the rest written.

        Divides what cannot be written together, so that only the job at fault fails.
        """
        try:
            failure = await self._commit(jobs)
        except Exception:  # noqa: BLE001  one bad batch must not end the committer
            _log.exception("a ledger batch failed")
            failure = DomainError(Reason.INTERNAL, "the ledger could not run this")
        if failure is None:
            return
        is_away = failure.reason is Reason.DEPENDENCY_UNAVAILABLE
        if len(jobs) == 1 or is_away:
            _fail(jobs, failure)
            if is_away:
                # Who has waited behind them would only wait as long again.
                _fail(self._queue.take_all(), failure)
            return
        half = len(jobs) // 2
        await self._recover(jobs[:half])
        await self._recover(jobs[half:])

    async def _commit(self, jobs: _Jobs) -> DomainError | None:
        """Commits and answers the jobs; else why that cannot be done for all of them together."""
        conflicts = 0
        while conflicts < MAX_CONFLICTS:
            plan: _Plan | None = None
            try:
                plan = await self._plan(jobs, await self._known(jobs))
                await self._write(plan)
            except TransactionLost:
                conflicts += 1
                self._forget(plan)
            except DatabaseUnavailable:
                self._forget(plan)
                if self._note_outage() > OUTAGE_PATIENCE_SECONDS:
                    return unavailable()
                await asyncio.sleep(OUTAGE_RETRY_SECONDS)
            except BaseException:
                self._forget(plan)
                raise
            else:
                _answer(jobs)
                return None
        return contention(MAX_CONFLICTS)

    def _note_outage(self) -> float:
        """For how many seconds the database has been away. It ends with a commit."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        return now - self._away_since

    async def _known(self, jobs: _Jobs) -> Known:
        request_keys = [key for job in jobs for key in job.request_keys]
        entry_ids = [entry_id for job in jobs for entry_id in job.entry_ids]
        return await self._store.known(request_keys, entry_ids)

    async def _plan(self, jobs: _Jobs, known: Known) -> "_Plan":
        """Applies the jobs in order and remembers the wallets as that leaves them."""
        wallets = await self._cache.wallets(jobs)
        writers = await self._cache.writers(jobs)
        ended_holds = await self._cache.ended_holds(jobs, wallets)
        row_keys = [key for job in jobs for key in job.row_keys]
        rows = await self._store.rows(row_keys) if row_keys else None
        draft = Draft(wallets, writers, known, self._clock(), ended_holds, rows)
        for job in jobs:
            for _ in job.apply(draft):
                # The transaction on its way has a command to send, and mongod waits for it.
                await asyncio.sleep(0)
        plan = _Plan(jobs, draft, await self._store.prepare(draft))
        self._cache.remember(draft)
        return plan

    def _forget(self, *plans: "_Plan | None") -> None:
        for plan in plans:
            if plan is not None:
                self._cache.forget(plan.draft)


class _Plan(NamedTuple):
    """A batch that is applied and not yet on its way."""

    jobs: _Jobs
    draft: Draft
    writes: Writes


class _Flight(NamedTuple):
    """A batch whose transaction is on its way."""

    plan: _Plan
    task: asyncio.Task[None]


def _answer(jobs: _Jobs) -> None:
    for job in jobs:
        job.answer()


def _fail(jobs: _Jobs, failure: DomainError) -> None:
    for job in jobs:
        job.fail(failure)


def _note_lost(lost: Exception) -> None:
    _log.info("a ledger transaction was lost", extra={"fields": {"error": str(lost)[:200]}})
