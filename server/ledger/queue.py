"""The committer's queue: bounded, interactive work first."""

import asyncio
from collections import deque
from typing import Any

from server.kernel.errors import DomainError, Reason
from server.ledger.frames import FrameJob
from server.ledger.jobs import Job

MAX_QUEUED_ENTRIES = 65_536
"""Entries that may wait; beyond it callers are told OVERLOADED."""

MAX_BATCH_ENTRIES = 4_096
"""Entries that one transaction takes. A single larger job does not exist."""


class JobQueue:
    """Jobs that wait. Single operations go before frames; each kind keeps its order."""

    def __init__(self) -> None:
        self._interactive: deque[Job[Any]] = deque()
        self._frames: deque[Job[Any]] = deque()
        self._entries = 0
        self._changed = asyncio.Event()

    @property
    def entries(self) -> int:
        """How many entries wait."""
        return self._entries

    def has_room(self, entries: int) -> bool:
        """Whether a job of so many entries would be taken now."""
        return self._entries + entries <= MAX_QUEUED_ENTRIES

    async def wait_for_room(self, entries: int) -> None:
        """Returns once a job of so many entries would be taken."""
        while not self.has_room(entries):
            self._changed.clear()
            await self._changed.wait()

    def put(self, job: Job[Any]) -> None:
        """OVERLOADED when the queue is full."""
        if not self.has_room(job.size):
            raise DomainError(
                Reason.OVERLOADED,
                "more work waits than the ledger will queue",
                {"queue": "ledger", "limit": MAX_QUEUED_ENTRIES},
                retry_delay_seconds=0.5,
            )
        (self._frames if isinstance(job, FrameJob) else self._interactive).append(job)
        self._entries += job.size
        self._changed.set()

    def take(self) -> list[Job[Any]]:
        """The next batch; empty when nothing waits. Frames are never divided."""
        # The first frame's place is kept: no amount of single operations starves the streams.
        reserved = self._frames[0].size if self._frames else 0
        batch = self._take_from(self._interactive, MAX_BATCH_ENTRIES - reserved)
        room = MAX_BATCH_ENTRIES - sum(job.size for job in batch)
        batch += self._take_from(self._frames, room)
        self._changed.set()
        return batch

    def take_all(self) -> list[Job[Any]]:
        """Everything that waits."""
        jobs = [*self._interactive, *self._frames]
        self._interactive.clear()
        self._frames.clear()
        self._entries = 0
        self._changed.set()
        return jobs

    def _take_from(self, waiting: deque[Job[Any]], room: int) -> list[Job[Any]]:
        taken: list[Job[Any]] = []
        while waiting and waiting[0].size <= room:
            job = waiting.popleft()
            self._entries -= job.size
            # A caller that went away has taken its job back.
            if not job.future.done():
                room -= job.size
                taken.append(job)
        return taken

    async def wait_for(self, entries: int) -> None:
        """Returns once so many entries wait."""
        while self._entries < entries:
            self._changed.clear()
            await self._changed.wait()
