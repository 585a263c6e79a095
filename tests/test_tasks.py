import asyncio
from contextlib import suppress

from server.kernel.tasks import Background, end


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
