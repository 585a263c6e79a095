"""The trace: requests of a production service, as in AzureLLMInferenceTrace_conv.csv."""

import csv
import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Final

HEADER: Final = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
MAX_PROBLEMS: Final = 20
"""Reading stops after so many bad rows."""
MAX_TOKENS: Final = 2**31 - 1
"""More than any request has; keeps sums within int64."""

_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?", re.ASCII)
_COUNT: Final = re.compile(r"\d{1,10}", re.ASCII)
_MILLISECOND_DIGITS: Final = 3


class TraceError(Exception):
    """The file is no trace; `problems` says why, line by line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _BadRowError(ValueError):
    """One row is wrong."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in the file's order. Times are milliseconds since the epoch."""

    times_ms: "array[int]"
    input_tokens: "array[int]"
    output_tokens: "array[int]"
    digest: str
    """Of the rows, hex; the same trace has the same whatever its line ends."""

    def __len__(self) -> int:
        return len(self.times_ms)


def read_trace(path: Path) -> Trace:
    """The trace in `path`. TraceError naming each bad line; OSError."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            return parse_trace(file, path.name)
        except UnicodeDecodeError as error:
            raise TraceError([f"{path.name}: not a text file in UTF-8 ({error.reason})"]) from error


def parse_trace(lines: Iterable[str], name: str) -> Trace:
    """The trace in `lines`; `name` is for its errors."""
    rows = csv.reader(lines)
    header = next(rows, [])
    if header != HEADER:
        found = ",".join(header) or "nothing"
        raise TraceError([f"{name}:1: expected the header {','.join(HEADER)}, found {found}"])
    trace = _Builder(name)
    try:
        for row in rows:
            trace.add(rows.line_num, row)
    except csv.Error as error:
        trace.problems.append(f"{name}:{rows.line_num}: {error}")
    return trace.finish()


class _Builder:
    def __init__(self, name: str) -> None:
        self._name = name
        self._times = array("q")
        self._inputs = array("q")
        self._outputs = array("q")
        self.problems: list[str] = []

    def add(self, line: int, row: list[str]) -> None:
        if not row:  # an empty line
            return
        try:
            time_ms, inputs, outputs = _parse_row(row)
        except _BadRowError as error:
            self.problems.append(f"{self._name}:{line}: {error}")
            if len(self.problems) >= MAX_PROBLEMS:
                raise TraceError([*self.problems, "... and perhaps more"]) from error
            return
        self._times.append(time_ms)
        self._inputs.append(inputs)
        self._outputs.append(outputs)

    def finish(self) -> Trace:
        if not self._times and not self.problems:
            self.problems.append(f"{self._name}: no rows after the header")
        if self.problems:
            raise TraceError(self.problems)
        digest = blake2b(digest_size=8)
        for column in (self._times, self._inputs, self._outputs):
            digest.update(column.tobytes())
        return Trace(self._times, self._inputs, self._outputs, digest.hexdigest())


def _parse_row(row: list[str]) -> tuple[int, int, int]:
    if len(row) != len(HEADER):
        raise _BadRowError(f"expected {len(HEADER)} columns, found {len(row)}")
    return _parse_time(row[0]), _parse_count(HEADER[1], row[1]), _parse_count(HEADER[2], row[2])


def _parse_time(text: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise _BadRowError(f"TIMESTAMP {text!r} is not like 2023-11-16 18:15:46.6805900")
    date, clock, fraction = match.groups(default="")
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}").replace(tzinfo=UTC)
    except ValueError as error:
        raise _BadRowError(f"TIMESTAMP {text!r}: {error}") from error
    milliseconds = int(fraction[:_MILLISECOND_DIGITS].ljust(_MILLISECOND_DIGITS, "0"))
    return int(moment.timestamp()) * 1000 + milliseconds


def _parse_count(column: str, text: str) -> int:
    if _COUNT.fullmatch(text) is None or int(text) > MAX_TOKENS:
        raise _BadRowError(f"{column} {text!r} is not a number of tokens (0 to {MAX_TOKENS})")
    return int(text)
