"""What a list is asked for, as MongoDB takes it: the filter, the order, and where a page goes on.

Filters are a subset of AIP-160:

    expression = factor {"AND" factor}        as in AIP-160, OR binds closer than AND
    factor     = term {"OR" term}
    term       = ["NOT" | "-"] term | "(" expression ")" | field operator literal
    operator   = "=" "!=" "<" "<=" ">" ">=" ":"
    literal    = quoted in "" or '' with \\ before what is meant as itself, or a bare word

`:` is begins-with for text, contains for a repeated field, otherwise `=`; `field:*` is any that is
set. Times are RFC 3339, enums by name with or without their prefix, in any case. `!=` and NOT hold
for rows without the field, comparisons do not.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn

import bson
from bson.codec_options import CodecOptions

from server.kernel.errors import Reason, refused
from server.resources.fields import Field
from server.resources.model import Document

MAX_DEPTH: Final = 16
"""Parentheses and negations within each other."""

MAX_TERMS: Final = 64
"""Comparisons in one filter."""

MAX_ORDER_FIELDS: Final = 4

_LAST_CHARACTER: Final = "\U0010ffff"
"""Sorts after whatever a text may go on with."""

_AND, _OR, _NOT, _OPEN, _CLOSE, _NAME, _OPERATOR, _LITERAL = (
    re.compile(rf"({pattern})\s*", re.DOTALL | re.ASCII)
    for pattern in (
        r"AND(?![\w.])",
        r"OR(?![\w.])",
        r"NOT(?![\w.])|-",
        r"\(",
        r"\)",
        r"[A-Za-z_][\w.]*",
        r"!=|<=|>=|[=<>:]",
        r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s()\"']+",
    )
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ID: Final = Field("id", "_id", str, frozenset(), nullable=False)
_PART = re.compile(r"\s*([A-Za-z_]\w*)(?:\s+(asc|desc))?\s*(?:$|,(?=.))", re.ASCII | re.DOTALL)
_AWARE: Final[CodecOptions[Document]] = CodecOptions(tz_aware=True)
_COMPARISONS: Final = {"!=": "$ne", "<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}


def parse_filter(text: str, fields: Mapping[str, Field]) -> Document:
    """The query, {} for no filter. FILTER_INVALID with the position (from 0) and the field."""
    return _Parser(text, fields).whole() if text.strip() else {}


def begins_with(prefix: str) -> Document:
    """The condition on a text that begins so."""
    return {"$gte": prefix, "$lt": prefix + _LAST_CHARACTER}


class _Parser:
    """Reads the filter from left to right; `_at` is where it has come to."""

    def __init__(self, text: str, fields: Mapping[str, Field]) -> None:
        self._text = text
        self._fields = fields
        self._at = len(text) - len(text.lstrip())
        self._depth = 0
        self._terms = 0

    def whole(self) -> Document:
        query = self._expression()
        if self._at < len(self._text):
            self._refuse("expected AND, OR or the end")
        return query

    def _expression(self) -> Document:
        return self._joined(self._factor, _AND, "$and")

    def _factor(self) -> Document:
        return self._joined(self._term, _OR, "$or")

    def _joined(self, read: Callable[[], Document], by: re.Pattern[str], into: str) -> Document:
        parts = [read()]
        while self._accept(by):
            parts.append(read())
        return parts[0] if len(parts) == 1 else {into: parts}

    def _term(self) -> Document:
        if self._accept(_NOT):
            return {"$nor": [self._nested(self._term)]}
        if not self._accept(_OPEN):
            return self._comparison()
        inner = self._nested(self._expression)
        self._expect(_CLOSE, ")")
        return inner

    def _nested(self, read: Callable[[], Document]) -> Document:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"more than {MAX_DEPTH} levels")
        inner = read()
        self._depth -= 1
        return inner

    def _comparison(self) -> Document:
        start = self._at
        self._terms += 1
        if self._terms > MAX_TERMS:
            self._refuse(f"more than {MAX_TERMS} comparisons")
        name = self._expect(_NAME, "a field")
        if name not in self._fields:
            self._refuse("not a field to filter by", name, start)
        field, start = self._fields[name], self._at
        operator = self._expect(_OPERATOR, "one of = != < <= > >= :", name)
        if operator not in field.operators:
            self._refuse(f"not by {operator}", name, start)
        return {field.key: self._condition(field, operator)}

    def _condition(self, field: Field, operator: str) -> object:
        start = self._at
        literal = self._expect(_LITERAL, "a value", field.name)
        if operator == ":" and literal == "*":
            return {"$nin": [None, "", []]}
        if literal[0] in "\"'":
            literal = _ESCAPED.sub(r"\1", literal[1:-1])
        try:
            value = field.read(literal)
        except ValueError as error:
            self._refuse(str(error), field.name, start)
        if operator == ":" and field.is_text:
            return begins_with(literal)
        return value if operator in ("=", ":") else {_COMPARISONS[operator]: value}

    def _accept(self, pattern: re.Pattern[str]) -> str:
        """What is here, "" when it is something else."""
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[1]

    def _expect(self, pattern: re.Pattern[str], what: str, field: str = "") -> str:
        return self._accept(pattern) or self._refuse(f"expected {what}", field)

    def _refuse(self, why: str, field: str = "", position: int | None = None) -> NoReturn:
        at = self._at if position is None else position
        metadata = {"position": at, "field": field}
        raise refused(Reason.FILTER_INVALID, "filter", f"{field} at {at}: {why}", metadata)


class Order(NamedTuple):
    """What rows are sorted by, 1 or -1 beside it; the last is always the id."""

    parts: tuple[tuple[Field, int], ...]

    @property
    def sort(self) -> dict[str, int]:
        """As MongoDB takes it."""
        return {field.key: direction for field, direction in self.parts}

    def cursor(self, last: Mapping[str, Any], following: Mapping[str, Any]) -> list[str | int]:
        """Where the rows from `following` on stand, after `last`."""
        keys = [field.key for field, _ in self.parts]
        same = next(i for i, key in enumerate(keys) if last.get(key) != following.get(key))
        values = bson.encode({"": [last.get(key) for key in keys]})
        return [same, b64encode(values).decode()]

    def after(self, cursor: Sequence[Any]) -> list[Document]:
        """Conditions on the rows from a cursor on; what matches one comes before the next one's.

        Each is one stretch of an index. No row was left that has more fields in common with the
        last one than the row that followed it, so most often there is one condition only.
        """
        values = bson.decode(b64decode(cursor[1]), _AWARE)[""]
        stretches: list[Document] = []
        for i in range(int(cursor[0]), -1, -1):
            same = {
                field.key: value for (field, _), value in zip(self.parts[:i], values, strict=False)
            }
            stretches += [{**same, **one} for one in _beyond(*self.parts[i], values[i])]
        return stretches


def parse_order(text: str, fields: Mapping[str, Field]) -> Order:
    """The order of `order_by`; ORDER_BY_INVALID with the position (from 0) and the field."""
    parts: dict[str, tuple[Field, int]] = {}
    at = 0
    while at < len(text) or not parts:
        match = _PART.match(text, at)
        if match is None:
            _refuse("expected fields with asc or desc, parted by commas", at)
        name = match[1]
        if name not in fields or name in parts or len(parts) == MAX_ORDER_FIELDS:
            _refuse(f"{name} cannot be sorted by here", match.start(1), name)
        parts[name] = (fields[name], -1 if match[2] == "desc" else 1)
        at = match.end()
    return Order((*parts.values(), (_ID, parts[name][1])))


def _beyond(field: Field, direction: int, value: Any) -> list[Document]:
    """After `value` in this field; unset sorts before everything, and compares to nothing."""
    if direction == 1:
        return [{field.key: {"$ne": None} if value is None else {"$gt": value}}]
    unset = [{field.key: None}] if field.nullable else []
    return [] if value is None else [{field.key: {"$lt": value}}, *unset]


def _refuse(why: str, position: int, field: str = "") -> NoReturn:
    metadata = {"position": position, "field": field}
    raise refused(Reason.ORDER_BY_INVALID, "order_by", f"at {position}: {why}", metadata)
