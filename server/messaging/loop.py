"""One consumer's way through the outbox: claim, handle, mark."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from bson import ObjectId

from server.kernel.clock import Clock
from server.kernel.ids import new_id
from server.messaging.consumers import Consumer, ConsumerUnavailable, Message, Rejected
from server.messaging.store import LEASE_MS, Claim, OutboxStore, message_of
from server.mongo.errors import is_unavailable, reachable

logger = logging.getLogger(__name__)

BATCH_SIZE = 32
POLL_INTERVAL_SECONDS = 1.0
"""For rows that nobody woke us for: another process's, or from before a crash."""
MAX_HANDED = 1_024
"""Rows handed over that wait; more are found in the database like another process's."""
GATHER_SECONDS = 0.05
"""Between the beginnings of two small batches: under load, rows are taken together."""
HANDLE_TIMEOUT_SECONDS = 10.0
LEAVE_TIMEOUT_SECONDS = 2.0
MAX_ATTEMPTS = 10
FIRST_RETRY_MS = 1_000
MAX_RETRY_MS = 300_000
FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 30.0
_MAX_DOUBLINGS = 10


class ConsumerLoop:
    """One consumer's messages, one after the other, a batch at a time."""

    def __init__(self, consumer: Consumer, store: OutboxStore, clock: Clock) -> None:
        self.name = consumer.name
        self.topics = consumer.topics
        self.woken = asyncio.Event()
        self._consumer = consumer
        self._store = store
        self._clock = clock
        self._failures = 0
        self._handed: deque[Message] = deque()
        self._look_at = 0.0

    def hand(self, row: Mapping[str, Any]) -> None:
        """Takes a row that was committed just now; one too many is found when it is due."""
        if len(self._handed) < MAX_HANDED:
            self._handed.append(message_of(row, self.name))
        self.woken.set()

    async def run(self) -> None:
        """Until cancelled, whatever happens."""
        while True:
            began = time.monotonic()
            # Cleared before looking: a wake while we look is not lost.
            self.woken.clear()
            try:
                taken = await self.run_once()
            except Exception as error:  # noqa: BLE001 - noted, and tried again after a pause
                _raise_if_cancelled()
                self._note(error)
                await asyncio.sleep(_pause_seconds(self._failures))
            else:
                _raise_if_cancelled()
                self._failures = 0
                if taken < BATCH_SIZE:
                    await self._wait_for_work()
                    await asyncio.sleep(began + GATHER_SECONDS - time.monotonic())

    async def run_once(self) -> int:
        """One batch; how many messages were taken. What was handed over comes first."""
        handed = self._take_handed()
        taken = len(handed.messages)
        with reachable():
            await self._work(handed)
            if not taken or time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + POLL_INTERVAL_SECONDS
                claim = await self._store.claim(self.name, BATCH_SIZE)
                taken += len(claim.messages)
                await self._work(claim)
        return taken

    def _take_handed(self) -> Claim:
        """Rows under no lease: what fails of them is left as it is, and tried again when due."""
        count = min(BATCH_SIZE, len(self._handed))
        messages = tuple(self._handed.popleft() for _ in range(count))
        return Claim(self.name, new_id(), self._clock() + LEASE_MS, messages)

    async def _wait_for_work(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_INTERVAL_SECONDS):
                await self.woken.wait()

    async def _work(self, claim: Claim) -> None:
        waiting, done = deque(claim.messages), list[ObjectId]()
        try:
            away = await self._handle_all(claim, waiting, done)
        except asyncio.CancelledError:
            # As well as it goes in a moment; otherwise the lease runs out.
            with suppress(Exception):
                async with asyncio.timeout(LEAVE_TIMEOUT_SECONDS):
                    await self._leave(claim, waiting, done)
            raise
        await self._leave(claim, waiting, done)
        if away is not None:
            raise away

    async def _handle_all(
        self, claim: Claim, waiting: deque[Message], done: list[ObjectId]
    ) -> ConsumerUnavailable | None:
        """Move messages from `waiting` to `done` or elsewhere; why it had to end early, if so."""
        while waiting and self._may_begin(claim):
            try:
                if await self._handle(claim, waiting[0]):
                    done.append(waiting[0].id)
            except ConsumerUnavailable as error:
                return error
            waiting.popleft()
        return None

    async def _leave(self, claim: Claim, waiting: deque[Message], done: list[ObjectId]) -> None:
        await self._store.done(claim, done)
        await self._store.release(claim, [message.id for message in waiting])

    def _may_begin(self, claim: Claim) -> bool:
        """Whether there is time for one more message before the lease is over."""
        latest_end = self._clock() + HANDLE_TIMEOUT_SECONDS * 1_000
        return latest_end < claim.until and not _is_cancelled()

    async def _handle(self, claim: Claim, message: Message) -> bool:
        """Whether the message is to be marked done; a failed one is put off or buried here."""
        failure = await self._failure_of(message)
        if failure is None:
            return True
        reason = _reason(failure)
        if isinstance(failure, Rejected) or message.attempts + 1 >= MAX_ATTEMPTS:
            await self._bury(claim, message, reason)
        else:
            await self._store.retry(claim, message, _retry_ms(message.attempts))
            self._log(logging.WARNING, "a message will be tried again", message, reason)
        return False

    async def _failure_of(self, message: Message) -> BaseException | None:
        try:
            async with asyncio.timeout(HANDLE_TIMEOUT_SECONDS):
                await self._consumer.handle(message)
        except ConsumerUnavailable:
            raise
        except asyncio.CancelledError as error:
            # Something that the handler awaited was cancelled, and not we.
            if _is_cancelled():
                raise
            return error
        except Exception as error:
            if is_unavailable(error):
                raise ConsumerUnavailable(_reason(error)) from error
            return error
        return None

    async def _bury(self, claim: Claim, message: Message, reason: str) -> None:
        if await self._store.bury(claim, message, reason):
            self._log(logging.ERROR, "a message went to the dead letters", message, reason)

    def _log(self, level: int, event: str, message: Message, reason: str) -> None:
        fields = {
            "consumer": self.name,
            "topic": message.topic,
            "message_id": str(message.id),
            "attempts": message.attempts + 1,
            "reason": reason,
        }
        logger.log(level, event, extra={"fields": fields})

    def _note(self, error: Exception) -> None:
        self._failures += 1
        fields = {"consumer": self.name, "failures": self._failures, "reason": _reason(error)}
        known = isinstance(error, ConsumerUnavailable) or is_unavailable(error)
        logger.warning(
            "dispatching pauses", extra={"fields": fields}, exc_info=None if known else error
        )


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, Rejected) else f"{type(error).__name__}: {error}"


def _retry_ms(attempts: int) -> int:
    """How long to wait after failure number `attempts` + 1: doubling, up to a bound."""
    return min(FIRST_RETRY_MS << attempts, MAX_RETRY_MS)


def _pause_seconds(failures: int) -> float:
    doubled: float = FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, _MAX_DOUBLINGS)
    return min(doubled, MAX_PAUSE_SECONDS)


def _is_cancelled() -> bool:
    # In Python 3.11 asyncio.wait_for, which the driver awaits, can swallow a
    # cancellation that arrives with its result; the count of requests remains.
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _raise_if_cancelled() -> None:
    if _is_cancelled():
        raise asyncio.CancelledError
