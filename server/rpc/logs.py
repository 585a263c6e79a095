"""Logs: one JSON object a line, on stderr.

    {"time": "2026-01-31T00:00:00.000Z", "level": "INFO", "logger": "server.rpc", "event": "rpc"}

Modules log through the standard library and pass what belongs to an event as
`extra={"fields": {...}}`; the message is the event's constant name.
"""

import logging
import sys
from typing import Any, Final, TextIO

import orjson

from server.kernel.clock import iso

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")

_QUIET: Final = ("pymongo", "asyncio", "grpc")
"""Libraries whose INFO is of no use to an operator."""


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        event: dict[str, Any] = {
            "time": iso(int(record.created * 1000)),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        event |= getattr(record, "fields", None) or {}
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(event, default=str).decode()


def configure_logging(level: str, stream: TextIO | None = None) -> None:
    """Send every logger's events to `stream` (stderr) from `level` on. Call once, at start."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
