"""The two ways to write a statement's lines: JSON Lines for programs, CSV for people.

A line is written in exactly one way, so that a reader may write it again and
compare. Lines end with a line feed and are UTF-8.
"""

import csv
import io
import json
import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

from zaaz_client.statements.rows import HEAD, STATEMENT, StatementRow, facts

_MICROS: Final = 1_000_000
_CONTROL: Final = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")
"""What would end a line, or a cell, in some program or other."""
_FORMULA: Final = ("=", "+", "-", "@")


class NotALine(ValueError):  # noqa: N818 - it names what was found
    """Bytes that are no line of this format."""


class Format(Protocol):
    """A way to write lines."""

    @property
    def title(self) -> str:
        """What stands above the lines, its line feed included; "" for nothing."""
        ...

    def write(self, row: StatementRow) -> str:
        """The line, its line feed included. UnreadableForm."""
        ...

    def fields(self, line: str) -> Mapping[str, Any]:
        """What stands in a line, by field. NotALine."""
        ...


class JsonLinesFormat:
    """One JSON object a line. Amounts are integers, in micro-credits."""

    title = ""

    def write(self, row: StatementRow) -> str:
        """As the protocol says."""
        fields = {"type": row.type, **facts(row), "canonical": row.canonical, "proof": row.proof}
        return json.dumps(fields, separators=(",", ":"), ensure_ascii=False) + "\n"

    def fields(self, line: str) -> Mapping[str, Any]:
        """As the protocol says."""
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            raise NotALine("it is no JSON") from None
        if not isinstance(fields, dict):
            raise NotALine("it is no JSON object")
        return fields


class CsvFormat:
    """A table (RFC 4180, with line feeds). Amounts are in credits, with six decimals.

    What could pass for a formula gets an apostrophe, control characters are
    written as in JSON: `canonical` has the text as it is.
    """

    columns: Final = (
        "type",
        "sequence",
        "created_time",
        "occurred_time",
        "cause",
        "credits",
        "held_change",
        "balance_after",
        "held_after",
        "debt_after",
        "shortfall",
        "counter_account",
        "ai_model",
        "feature_endpoint",
        "client_id",
        "request_id",
        "usage_key",
        "reason",
        "hold_id",
        "transaction_id",
        "end_time",
        "user_id",
        "user_wallet_id",
        "key_id",
        "chain",
        "proof",
        "canonical",
    )
    _renamed: Final[Mapping[str, Mapping[str, str]]] = {
        STATEMENT: {
            "opening_sequence": "sequence",
            "opening_balance": "balance_after",
            "start_time": "created_time",
        },
        HEAD: {"signed_time": "created_time"},
    }

    @property
    def title(self) -> str:
        """The names of the columns."""
        return _csv(self.columns)

    def write(self, row: StatementRow) -> str:
        """As the protocol says."""
        cells = {"type": row.type, "canonical": row.canonical, "proof": row.proof}
        renamed = self._renamed.get(row.type, {})
        for name, value in facts(row).items():
            column, cell = _cell(name, value)
            cells[renamed.get(column, column)] = cell
        return _csv([cells.get(column, "") for column in self.columns])

    def fields(self, line: str) -> Mapping[str, Any]:
        """As the protocol says."""
        try:
            rows = list(csv.reader([line.removesuffix("\n")], strict=True))
        except csv.Error as error:
            raise NotALine(f"it is no CSV: {error}") from None
        if len(rows) != 1 or len(rows[0]) != len(self.columns):
            raise NotALine(f"it has not {len(self.columns)} columns")
        return dict(zip(self.columns, rows[0], strict=True))


FORMATS: Final[Mapping[str, Format]] = {"csv": CsvFormat(), "jsonl": JsonLinesFormat()}
"""By the name of their files."""


def credits_text(micros: int) -> str:
    """Credits with six decimals, exactly."""
    whole, rest = divmod(abs(micros), _MICROS)
    return f"{'-' if micros < 0 else ''}{whole}.{rest:06d}"


def _cell(name: str, value: str | int) -> tuple[str, str]:
    """A fact's column and what stands in it."""
    if isinstance(value, str):
        shown = _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
        return name, f"'{shown}" if shown.startswith(_FORMULA) else shown
    if name.endswith("_micros"):
        return name.removesuffix("_micros"), credits_text(value)
    return name, str(value)


def _csv(cells: Any) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
