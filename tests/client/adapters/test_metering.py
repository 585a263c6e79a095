"""The meter itself: what goes wrong in it is nobody else's trouble, and is not silent."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from zaaz_client.adapters import Billing, FinishedCall
from zaaz_client.adapters.metering import CallMeter, Meter
from zaaz_client.adapters.readers import Reader

from tests.ledger.calls import soon


class Said(Reader):
    """Of an answer's words; some of which nobody can read."""

    def answer(self, answer: Any) -> None:
        self.event(answer)

    def event(self, event: Any) -> None:
        self.began = True
        if event == "unreadable":
            raise ValueError(event)
        self._say(event)


class Till(Billing):
    """Notes what it is given, once `gate` is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        self.settled: list[FinishedCall] = []

    async def settle(self, call: object, finished: FinishedCall) -> None:
        self.asked.set()
        await self.gate.wait()
        self.settled.append(finished)


@pytest.fixture
async def till() -> Till:
    return Till()


@pytest.fixture
async def meter(till: Till) -> Meter:
    return Meter("v", till, str, lambda unknown: unknown.known)


async def words(*said: str) -> AsyncIterator[str]:
    for word in said:
        yield word


async def begun(meter: Meter, broken: bool = False) -> CallMeter:
    """A call of which a word has come. Its connection may be one that cannot be closed."""

    async def close() -> None:
        if broken:
            raise OSError("broken")

    call = meter.begin(Said(), {"model": "m"})
    await anext(call.events(words("yes", "no"), close))
    return call


async def test_a_connection_that_cannot_be_closed_keeps_no_other_call_from_being_billed(
    meter: Meter, till: Till, caplog: pytest.LogCaptureFixture
) -> None:
    calls = [await begun(meter, broken=True) for _ in range(3)]
    await soon(meter.end())
    assert len(till.settled) == len(calls)
    assert "broken" in caplog.text


async def test_what_nobody_can_read_is_the_readers_all_the_same(
    meter: Meter, till: Till, caplog: pytest.LogCaptureFixture
) -> None:
    async def close() -> None:
        pass

    call = meter.begin(Said(), {"model": "m"})
    said = ["so", "unreadable", "unreadable", "it", "is"]
    assert [word async for word in call.events(words(*said), close)] == said
    assert call.reader.text == "soitis"
    whole = meter.begin(Said(), {"model": "m"})
    whole.answer("unreadable")
    await whole.finish()
    assert len(till.settled) == 2
    assert caplog.text.count("ValueError: unreadable") == 2  # once a call


@pytest.mark.parametrize("ending", ["meter", "call"])
async def test_a_cancellation_while_calls_are_billed_comes_through(
    meter: Meter, till: Till, ending: str
) -> None:
    call = await begun(meter)
    till.gate.clear()
    task = asyncio.create_task(meter.end() if ending == "meter" else call.close())
    await till.asked.wait()
    task.cancel()
    await asyncio.sleep(0)
    till.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert len(till.settled) == 1
