"""Filters: a subset of AIP-160, to MongoDB queries.

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
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from server.kernel.errors import Reason, refused
from server.resources.fields import Field
from server.resources.model import Document

MAX_DEPTH: Final = 16
"""Parentheses and negations within each other."""

MAX_TERMS: Final = 64
"""Comparisons in one filter."""

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
        description = f"{field} at {at}: {why}".lstrip()
        raise refused(
            Reason.FILTER_INVALID, "filter", description, {"position": at, "field": field}
        )
