"""Logs: one JSON object a line, on stderr.

    {"time": "2026-01-31T00:00:00.000Z", "level": "INFO", "logger": "server.rpc", "event": "rpc"}

Modules log through the standard library and pass what belongs to an event as
`extra={"fields": {...}}`; the message is the event's constant name.
"""

import asyncio
import logging
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO

import orjson

from server.kernel.clock import iso

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")

FLUSH_SECONDS: Final = 0.1
"""So long a line below WARNING may wait for others: a system call a line stops the event loop."""

MAX_WAITING_LINES: Final = 500
"""More lines than these do not wait."""

_QUIET: Final = ("pymongo", "asyncio", "grpc")
"""Libraries whose INFO is of no use to an operator."""

Fields = Mapping[str, object]


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        fields: dict[str, object] = dict(getattr(record, "fields", None) or {})
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _line(record.created, record.levelno, record.name, record.getMessage(), fields)


class EventLog(logging.Handler):
    """Writes lines in order, many with one system call while an event loop runs.

    A line of WARNING or above is written at once, with all that waited before
    it; so is one from outside an event loop. Killed in between, a process
    loses FLUSH_SECONDS of the rest.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._waiting: list[str] = []
        self._flushing_on: asyncio.AbstractEventLoop | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record of the standard library's logging."""
        try:
            self._take(record.levelno, self.format(record))
        except Exception:  # noqa: BLE001
            self.handleError(record)

    def event(
        self, time_seconds: float, level: int, logger: str, name: str, fields: Fields
    ) -> None:
        """Take an event past the standard library's records, which cost several times as much."""
        if level >= self.level:
            self._take(level, _line(time_seconds, level, logger, name, fields))

    def flush(self) -> None:
        """Write what waits."""
        self.acquire()
        try:
            self._flushing_on = None
            waiting, self._waiting = self._waiting, []
            self._stream.write("".join(waiting))
            self._stream.flush()
        finally:
            self.release()

    def _take(self, level: int, line: str) -> None:
        self._waiting.append(line + "\n")
        full = len(self._waiting) >= MAX_WAITING_LINES
        if full or level >= logging.WARNING or not self._will_flush():
            self.flush()

    def _will_flush(self) -> bool:
        """Whether a running loop has been asked to flush soon."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if loop is not self._flushing_on:
            self._flushing_on = loop
            loop.call_later(FLUSH_SECONDS, self.flush)
        return True


def configure_logging(level: str, stream: TextIO | None = None) -> EventLog:
    """Send every logger's events to `stream` (stderr) from `level` on. Call once, at start."""
    log = EventLog(stream or sys.stderr)
    log.setFormatter(JsonFormatter())
    log.setLevel(level)
    root = logging.getLogger()
    root.handlers[:] = [log]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    return log


def _line(time_seconds: float, level: int, logger: str, event: str, fields: Fields) -> str:
    line: dict[str, Any] = {
        "time": iso(int(time_seconds * 1000)),
        "level": logging.getLevelName(level),
        "logger": logger,
        "event": event,
    }
    return orjson.dumps(line | dict(fields), default=str).decode()
