"""Lines of JSON, in order, few system calls."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from server.rpc.logs import MAX_WAITING_LINES, EventLog, configure_logging

NAME = "testing.logs"


class Stream(io.StringIO):
    """Tells when it was flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed = asyncio.Event()

    def flush(self) -> None:
        self.flushed.set()


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def log(stream: io.StringIO) -> Iterator[EventLog]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield configure_logging("INFO", stream)
    root.handlers[:] = handlers
    root.setLevel(level)


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_line_with_its_fields(log: EventLog, stream: io.StringIO) -> None:
    logging.getLogger(NAME).info("started", extra={"fields": {"port": 1, "at": Exception("x\ny")}})

    (event,) = events(stream)
    assert event.pop("time").endswith("Z")
    assert event == {
        "level": "INFO",
        "logger": NAME,
        "event": "started",
        "port": 1,
        "at": "x\ny",
    }


def test_an_exception_stays_on_its_line(log: EventLog, stream: io.StringIO) -> None:
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        logging.getLogger(NAME).exception("failed")

    (event,) = events(stream)
    assert event["exception"].endswith("RuntimeError: boom")


def test_what_is_below_the_level_is_dropped(log: EventLog, stream: io.StringIO) -> None:
    logging.getLogger(NAME).debug("x")
    log.event(0.0, logging.DEBUG, NAME, "y", {})

    assert events(stream) == []


async def test_lines_wait_for_others_and_are_written_soon(log: EventLog, stream: Stream) -> None:
    logging.getLogger(NAME).info("a")
    log.event(0.0, logging.INFO, NAME, "b", {})
    before = stream.getvalue()
    async with asyncio.timeout(10):
        await stream.flushed.wait()

    assert before == ""
    assert [event["event"] for event in events(stream)] == ["a", "b"]


async def test_a_warning_is_written_at_once_after_what_waited(
    log: EventLog, stream: io.StringIO
) -> None:
    logging.getLogger(NAME).info("a")
    logging.getLogger(NAME).warning("b")

    assert [event["event"] for event in events(stream)] == ["a", "b"]


async def test_waiting_lines_are_bounded(log: EventLog, stream: io.StringIO) -> None:
    for _ in range(MAX_WAITING_LINES):
        logging.getLogger(NAME).info("a")

    assert len(events(stream)) == MAX_WAITING_LINES
