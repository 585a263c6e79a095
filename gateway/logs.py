"""Log lines: JSON on stderr, as the server's are. No access log: the server counts every call."""

import logging
import sys
import time
from typing import Final

import orjson

_MAX_STACK_CHARACTERS: Final = 8_000


def configure_logging(level: str) -> None:
    """Everything of this level and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)[-_MAX_STACK_CHARACTERS:]
        return orjson.dumps(line, default=str).decode()
