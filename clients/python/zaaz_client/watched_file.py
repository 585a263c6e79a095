"""Files that others replace while this process runs: keys and certificates."""

import os
from pathlib import Path
from typing import Final

MAX_FILE_BYTES: Final = 1_048_576
"""A bundle of all the world's root certificates has a fifth of it."""

_State = tuple[int, ...]


class WatchedFile:
    """A small file, and whether it is still the one that was read.

    Looking costs a `stat`. A link that is turned to another file, as
    Kubernetes does with mounted secrets, counts as a change.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._state: _State | None = None

    @property
    def is_changed(self) -> bool:
        """Whether it is another file, or no file, since `read`."""
        return _state(self.path) != self._state

    def read(self) -> bytes:
        """What stands in it. OSError; ValueError for one that is too large."""
        # Looked at first: what is written in between shows as a change later.
        self._state = _state(self.path)
        with self.path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"{self.path} has more than {MAX_FILE_BYTES:,} bytes")
        return content


def _state(path: Path) -> _State | None:
    try:
        found = path.stat()
    except OSError:
        return None
    # ctime too: it tells of a chmod that makes a file readable, and of times that were set.
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
