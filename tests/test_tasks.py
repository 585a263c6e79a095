import asyncio
from contextlib import suppress

import pytest

from server.kernel.tasks import Background, end, to_its_end


async def test_work_that_is_seen_to_its_end_outlasts_a_cancellation() -> None:
    goes_on, done = asyncio.Event(), []

    async def work() -> None:
        await goes_on.wait()
        done.append(True)

    task = asyncio.create_task(to_its_end(work()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [True]


async def test_a_task_that_swallows_a_cancellation_ends_all_the_same() -> None:
    started = asyncio.Event()

    async def stubborn() -> None:
        started.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await started.wait()
    await end(task)
    assert task.cancelled()


async def test_a_loop_that_ends_by_itself_is_noticed() -> None:
    async def broken() -> None:
        raise RuntimeError("a defect")

    background = Background()
    background.start("broken", broken())
    async with asyncio.timeout(5):
        await background.failed.wait()
    await background.stop()


async def test_stopped_loops_are_no_failure() -> None:
    background = Background()
    background.start("idle", asyncio.Event().wait())  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await background.stop()
    assert not background.failed.is_set()
