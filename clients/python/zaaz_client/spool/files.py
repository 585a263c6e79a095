"""A spool's directory: its lock, its note of whose it is, and durable names."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from zaaz_client.spool.errors import (
    SpoolDamaged,
    SpoolError,
    SpoolInUse,
    SpoolOfAnotherWriter,
)

FORMAT: Final = 1
FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700
_NOTE: Final = "spool.json"
_LOCK: Final = "lock"


@dataclass(frozen=True, slots=True)
class Note:
    """What cannot be told from the segments."""

    writer_id: str
    shift: int = 0
    """An event's offset on the server is its position in the spool and so much more."""
    unconfirmed: int | None = None
    """The position of the first event that was taken before the server was heard of."""
    client_id: str = ""
    """Whose API keys it was opened with; empty before a server has said it."""
    format: int = FORMAT


class Directory:
    """The directory, locked for this stream from `open` to `close`. Blocking."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def open(self) -> None:
        """Make and lock it. SpoolInUse when somebody else has it."""
        self._make()
        # Not on Windows: there the SDK works, without spools.
        from fcntl import LOCK_EX, LOCK_NB, flock

        lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise SpoolInUse(f"{self.path} is the spool of a stream that is open") from None
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    def _make(self) -> None:
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self.path.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        for path in made:  # a directory whose own name is lost is lost with all its files
            _sync(path.parent)

    def close(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            from fcntl import LOCK_UN, flock

            lock, self._lock = self._lock, None
            flock(lock, LOCK_UN)  # processes that were forked meanwhile have it open, too
            os.close(lock)

    def sync(self) -> None:
        """Make names that were added or removed durable."""
        _sync(self.path)

    def note_for(self, writer_id: str) -> Note:
        """The writer's note, made if the spool is new."""
        note = self.note()
        if note is None:
            return self.keep(Note(writer_id))
        if note.writer_id != writer_id:
            raise SpoolOfAnotherWriter(
                f"{self.path} is the spool of writer {note.writer_id!r}, not of {writer_id!r}"
            )
        return note

    def note(self) -> Note | None:
        """The note, if there is one."""
        path = self.path / _NOTE
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            if any(self.path.glob("*.log")):
                raise SpoolDamaged(f"{path} is missing, and there are events") from None
            return None
        try:
            return _note(json.loads(text))
        except (ValueError, TypeError) as error:
            raise SpoolDamaged(f"{path} at byte 0: not a spool's note") from error

    def keep(self, note: Note, **changes: int | str | None) -> Note:
        """Write the note, with these changes, whole or not at all."""
        note = replace(note, **changes)  # type: ignore[arg-type]
        path = self.path / _NOTE
        draft = path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(draft, flags, FILE_MODE), "w") as file:
            json.dump(asdict(note), file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        self.sync()
        return note


def _sync(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _note(values: Any) -> Note:
    if not isinstance(values, dict):
        raise TypeError
    if values.get("format") != FORMAT:
        raise SpoolError(f"the spool has format {values.get('format')}; this SDK knows {FORMAT}")
    note = Note(**values)
    numbers = isinstance(note.shift, int) and isinstance(note.unconfirmed, int | None)
    names = isinstance(note.writer_id, str) and isinstance(note.client_id, str)
    if not (numbers and names):
        raise TypeError
    return note
