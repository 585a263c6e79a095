"""Why mongod ended: its exit code, output and log in words that say what helps."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from server.mongo.binary import missing_libraries
from server.mongo.layout import Layout

LOG_TAIL_BYTES = 64 * 1024
MAX_COMPLAINT_CHARACTERS = 500
FULL_BELOW_BYTES = 1024 * 1024
_CANNOT_EXECUTE = (126, 127)
_INCOMPATIBLE_FILES = 62


def explain(code: int, program: Path, layout: Layout, log_from: int) -> str:
    """One message for a mongod that ended with `code` (negative: the signal's number).

    Its log begins at byte `log_from`. Blocks: run it in a thread.
    """
    output = _tail(layout.output, 0)
    if code in _CANNOT_EXECUTE:
        return _cannot_execute(program, output)
    log = _tail(layout.log, log_from)
    cause = _known(code, log + output, layout) or _complaint(log, output)
    return f"mongod ended with {_exit(code)}: {cause}; its log is {layout.log}"


def _cannot_execute(program: Path, output: str) -> str:
    missing = missing_libraries(program, output)
    if missing:
        return (
            f"mongod ({program}) lacks the shared libraries {', '.join(missing)}:"
            " on Debian and Ubuntu, apt-get install libcurl4 libssl3"
        )
    return f"mongod ({program}) cannot be executed: {output.strip()}"


def _known(code: int, text: str, layout: Layout) -> str | None:
    if "No space left on device" in text or _is_full(layout):
        return f"the disk of {layout.data_dir} is full"
    if "Permission denied" in text or "Read-only file system" in text:
        return f"{layout.data_dir} is not writable for this user"
    if "DBPathInUse" in text:
        return f"another mongod uses {layout.data_dir}"
    if code == _INCOMPATIBLE_FILES:
        return f"the files in {layout.data_dir} are of another MongoDB version"
    if code == -signal.SIGILL:
        return "this processor lacks AVX, which MongoDB 5 and later need"
    return None


def _is_full(layout: Layout) -> bool:
    # A full disk may leave no room to say so in the log.
    return shutil.disk_usage(layout.data_dir).free < FULL_BELOW_BYTES


def _complaint(log: str, output: str) -> str:
    said = _last_complaint(log) or _outcry(output) or "it left no reason"
    return said[:MAX_COMPLAINT_CHARACTERS]


def _outcry(output: str) -> str:
    """What was printed besides the first lines of the log."""
    return "\n".join(line for line in output.splitlines() if not line.startswith("{")).strip()


def _exit(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _last_complaint(log: str) -> str | None:
    """The message of the last error or fatal line."""
    complaints = [line for line in _lines(log) if line.get("s") in ("E", "F")]
    if not complaints:
        return None
    last = complaints[-1]
    return f"{last.get('msg')} {json.dumps(last.get('attr', {}))}"


def _lines(log: str) -> Iterator[dict[str, object]]:
    for line in log.splitlines():
        try:
            parsed = json.loads(line)
        except ValueError:
            continue
        if isinstance(parsed, dict):
            yield parsed


def _tail(path: Path, start: int) -> str:
    """What is in the file after byte `start`, its last LOG_TAIL_BYTES at most."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
