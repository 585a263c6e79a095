"""Where the embedded mongod keeps what."""

import os
import re
import tempfile
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from server.mongo.errors import EmbeddedMongodFailed

MAX_SOCKET_PATH_BYTES = 107
_SOCKET = "mongod.sock"
# mongod reads a comma as a list and a colon as a port, and the driver takes a
# member's name for a host's: in lowercase.
_PLAIN_PATH = re.compile(r"[a-z0-9_./+-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Layout:
    """All is in the data directory, but perhaps the socket."""

    data_dir: Path
    socket: Path

    @property
    def database(self) -> Path:
        """mongod's own directory (its dbpath)."""
        return self.data_dir / "mongo"

    @property
    def log(self) -> Path:
        """mongod's log, as JSON lines."""
        return self.data_dir / "mongod.log"

    @property
    def output(self) -> Path:
        """What mongod printed before it had a log: the loader's complaints."""
        return self.data_dir / "mongod.out"

    @property
    def owner(self) -> Path:
        """Locked by the server process that the data directory belongs to."""
        return self.data_dir / "mongod.owner"


def lay_out(data_dir: Path) -> Layout:
    """Make the directories (0700). EmbeddedMongodFailed when they cannot be written."""
    data_dir = data_dir.absolute()
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        layout = Layout(data_dir, _socket_path(data_dir))
        layout.database.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise unusable(data_dir, error) from error
    return layout


def _socket_path(data_dir: Path) -> Path:
    path = data_dir / _SOCKET
    return path if _usable(path) else _private_dir(data_dir) / _SOCKET


def _usable(path: Path) -> bool:
    fits = len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES
    return fits and _PLAIN_PATH.fullmatch(str(path)) is not None


def _private_dir(data_dir: Path) -> Path:
    """A directory that is only this user's, the same one for the same data directory."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    name = blake2b(os.fsencode(data_dir), digest_size=8).hexdigest()
    private = Path(base) / f"zaaz-{name}"
    private.mkdir(mode=0o700, exist_ok=True)
    status = private.lstat()
    # In a directory that others can write, somebody may have been there first.
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or private.is_symlink():
        raise EmbeddedMongodFailed(f"{private} is not private to this user: remove it")
    if not _usable(private / _SOCKET):
        raise EmbeddedMongodFailed(
            f"{private} is too long or too odd for a socket: set a shorter TMPDIR or ZAAZ_DATA_DIR"
        )
    return private


def unusable(data_dir: Path, error: OSError) -> EmbeddedMongodFailed:
    """What to raise when the data directory fails us."""
    return EmbeddedMongodFailed(f"the data directory {data_dir} cannot be used: {error.strerror}")
