"""What a run costs each process, what it leaves idle, and which machine it ran on (Linux)."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.mongo.binary import find_mongod

ROOT = Path(__file__).parent.parent
OTHERS, IDLE = "others", "idle"
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Processor time so far by role; and what OTHERS had, and what was IDLE, of the machine."""
    seconds = {role: _of_process(pid) for role, pid in pids.items()}
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, idle, waiting, *interrupts = (int(text) for text in fields)
    busy = (user + nice + system + sum(interrupts)) / _TICKS_PER_SECOND
    seconds[OTHERS] = busy - sum(seconds.values())
    seconds[IDLE] = (idle + waiting) / _TICKS_PER_SECOND
    return seconds


class Meter:
    """What processes cost from when it is made."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._before = cpu_seconds(pids)

    def read(self) -> dict[str, Any]:
        """Processor seconds so far and the peak of resident memory, by role."""
        after = cpu_seconds(self._pids)
        return {
            "cpu_seconds": {
                role: round(max(0.0, after[role] - self._before[role]), 2) for role in after
            },
            "peak_rss_mib": {role: peak_mebibytes(pid) for role, pid in self._pids.items()},
        }


def _of_process(pid: int) -> float:
    # The command's name stands in parentheses and may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def peak_mebibytes(pid: int) -> float:
    """The most memory that a process has had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return round(int(found[1]) / 1_024, 1) if found else 0.0


def resident_kibibytes(pid: int) -> int:
    """What the process has resident now."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def describe() -> str:
    """The machine in a line: cores, processor, Python, mongod, load."""
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return ", ".join(
        (
            f"{len(os.sched_getaffinity(0))} cores",
            model[1] if model else platform.machine(),
            f"Python {platform.python_version()}",
            f"mongod {_mongod_version()}",
            f"load {os.getloadavg()[0]:.1f} before",
        )
    )


def commit() -> str:
    """The commit that was measured, with a plus where what is measured differs from it.

    "unknown" in a copy without its history: that is no reason to lose a run.
    """
    git = ("git", "-C", str(ROOT))
    try:
        changed = _output(*git, "status", "--porcelain", "--", "server", "clients", "protos")
        return _output(*git, "rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _mongod_version() -> str:
    return _output(str(find_mongod()), "--version").split()[2].removeprefix("v")


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
