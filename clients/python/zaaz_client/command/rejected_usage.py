"""What `zaaz usage rejected` has done by the server, batch after batch."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final
from uuid import uuid4

from rich.progress import Progress
from zaaz.credits.v1.usage_service_pb2 import (
    DiscardRejectedUsageRequest,
    ListRejectedUsageRequest,
    RecordUsageResult,
    RejectedUsage,
    ReplayRejectedUsageRequest,
)

from zaaz_client.client import ZaazClient
from zaaz_client.command.asking import PATIENCE_SECONDS, progress
from zaaz_client.lists import iterate
from zaaz_client.retry import retry_within

BATCH_IDS: Final = 1_000
"""In one call."""
MAX_REJECTED: Final = 100_000
"""What the server keeps for a client."""


def listed(client: ZaazClient, user: str, limit: int | None) -> AsyncIterator[RejectedUsage]:
    """What is kept, oldest first; of a user if one is named."""
    request = ListRejectedUsageRequest(user_id=user)
    method = client.usage.ListRejectedUsage
    return iterate(method, request, limit=limit, retry_seconds=PATIENCE_SECONDS)


async def chosen_ids(client: ZaazClient, ids: Sequence[str], user: str) -> list[str]:
    """These ids, each once; those of all that is kept if there are none."""
    if ids:
        return list(dict.fromkeys(ids))
    # Read whole before any is taken away: pages go by what is there.
    with progress() as bar:
        task = bar.add_task("found", total=None)
        found = []
        async for one in listed(client, user, MAX_REJECTED):
            found.append(one.id)
            bar.advance(task)
    return found


async def replay_batches(
    client: ZaazClient,
    chosen: list[str],
    take: Callable[[dict[str, RecordUsageResult]], None],
    bar: Progress,
) -> None:
    """Bill them if that can be; `take` is told after each batch what became of it, by id."""
    task = bar.add_task("replayed", total=len(chosen))
    for batch in _batches(chosen):
        request = ReplayRejectedUsageRequest(ids=batch, request_id=uuid4().hex)
        method = client.usage.ReplayRejectedUsage
        answer = await retry_within(method, request, PATIENCE_SECONDS)
        take(dict(zip(batch, answer.results, strict=True)))
        bar.advance(task, len(batch))


async def discard_batches(
    client: ZaazClient, chosen: list[str], take: Callable[[int], None], bar: Progress
) -> None:
    """Give them up; `take` is told after each batch how many of it are gone."""
    task = bar.add_task("discarded", total=len(chosen))
    for batch in _batches(chosen):
        request = DiscardRejectedUsageRequest(ids=batch, request_id=uuid4().hex)
        method = client.usage.DiscardRejectedUsage
        take((await retry_within(method, request, PATIENCE_SECONDS)).discarded)
        bar.advance(task, len(batch))


def _batches(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), BATCH_IDS):
        yield ids[start : start + BATCH_IDS]
