"""Filters: a subset of AIP-160, to MongoDB queries.

    expression = factor {"AND" factor}        as in AIP-160, OR binds closer than AND
    factor     = term {"OR" term}
    term       = ["NOT" | "-"] ("(" expression ")" | field operator literal)
    operator   = "=" "!=" "<" "<=" ">" ">=" ":"
    literal    = quoted in "" or '' with \\ before what is meant as itself, or a bare word

`:` is begins-with for text, contains for a repeated field, otherwise `=`; `field:*` is any that is
set. Times are RFC 3339, enums by name with or without their prefix, in any case. `!=` and NOT hold
for rows without the field, comparisons do not.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from bson import ObjectId

from server.kernel.errors import DomainError, FieldViolation, Reason
from server.resources.fields import Field, Kind
from server.resources.model import Document

MAX_DEPTH: Final = 16
"""Parentheses and negations within each other."""

MAX_TERMS: Final = 64
"""Comparisons in one filter."""

LAST_CHARACTER: Final = "\U0010ffff"
"""Sorts after whatever a text may go on with."""

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_OPERATOR = re.compile(r"!=|<=|>=|=|<|>|:")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_BARE = re.compile(r"[^\s()\"']+")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_ID = re.compile(r"[0-9a-f]{24}")

_COMPARISONS: Final = {"!=": "$ne", "<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}
_EQUALITY: Final = frozenset(("=", "!=", ":"))
_UNORDERED: Final = frozenset((Kind.BOOLEAN, Kind.ENUM, Kind.ID))
_BOOLEANS: Final = {"true": True, "false": False}
_FIRST_YEAR: Final = 1970


def parse_filter(text: str, fields: Mapping[str, Field]) -> Document:
    """The query, {} for no filter. FILTER_INVALID with the position (from 0) and the field."""
    parser = _Parser(text, fields)
    return parser.whole() if text.strip() else {}


def begins_with(prefix: str) -> Document:
    """The condition on a text that begins so."""
    return {"$gte": prefix, "$lt": prefix + LAST_CHARACTER}


class _Parser:
    """Reads the filter from left to right; `_at` is where it has come to."""

    def __init__(self, text: str, fields: Mapping[str, Field]) -> None:
        self._text = text
        self._fields = fields
        self._at = 0
        self._depth = 0
        self._terms = 0

    def whole(self) -> Document:
        query = self._expression()
        if self._at < len(self._text):
            self._refuse("expected AND, OR or the end")
        return query

    def _expression(self) -> Document:
        factors = [self._factor()]
        while self._word("AND"):
            factors.append(self._factor())
        return factors[0] if len(factors) == 1 else {"$and": factors}

    def _factor(self) -> Document:
        terms = [self._term()]
        while self._word("OR"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else {"$or": terms}

    def _term(self) -> Document:
        if self._word("NOT") or self._sign("-"):
            return {"$nor": [self._nested(self._term)]}
        if not self._sign("("):
            return self._restriction()
        inner = self._nested(self._expression)
        if not self._sign(")"):
            self._refuse("expected )")
        return inner

    def _nested(self, read: Any) -> Document:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"more than {MAX_DEPTH} levels")
        inner: Document = read()
        self._depth -= 1
        return inner

    def _restriction(self) -> Document:
        self._terms += 1
        if self._terms > MAX_TERMS:
            self._refuse(f"more than {MAX_TERMS} comparisons")
        start = self._skip()
        name = self._take(_NAME, "expected a field")
        field = self._fields.get(name)
        if field is None:
            self._refuse(f"{name} is not a field to filter by", start, name)
        start = self._skip()
        operator = self._take(_OPERATOR, "expected one of = != < <= > >= :", name)
        if not _allows(field, operator):
            self._refuse(f"{name} cannot be compared by {operator}", start, name)
        return self._comparison(field, operator)

    def _comparison(self, field: Field, operator: str) -> Document:
        start = self._skip()
        quoted = _QUOTED.match(self._text, start)
        if quoted is not None:
            self._at = quoted.end()
            text = _ESCAPED.sub(r"\1", quoted.group()[1:-1])
        else:
            text = self._take(_BARE, "expected a value", field.path)
            if operator == ":" and text == "*":
                return {field.key: {"$nin": [None, "", []]}}
        try:
            value = _READERS[field.kind](field, text)
        except ValueError as error:
            self._refuse(str(error), start, field.path)
        if operator == ":" and field.kind is Kind.TEXT and not field.repeated:
            return {field.key: begins_with(text)}
        comparison = _COMPARISONS.get(operator)
        return {field.key: value if comparison is None else {comparison: value}}

    def _skip(self) -> int:
        """Past white space; where that is."""
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match is not None else self._at
        return self._at

    def _word(self, word: str) -> bool:
        after = self._skip() + len(word)
        follows = self._text[after : after + 1]
        return not (follows.isalnum() or follows in ("_", ".")) and self._sign(word)

    def _sign(self, sign: str) -> bool:
        if not self._text.startswith(sign, self._skip()):
            return False
        self._at += len(sign)
        self._skip()
        return True

    def _take(self, pattern: re.Pattern[str], otherwise: str, field: str = "") -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            self._refuse(otherwise, field=field)
        self._at = match.end()
        return match.group()

    def _refuse(self, why: str, position: int | None = None, field: str = "") -> NoReturn:
        at = self._at if position is None else position
        description = f"at {at}: {why}"
        raise DomainError(
            Reason.FILTER_INVALID,
            f"filter, {description}",
            {"position": at, "field": field},
            violations=[FieldViolation("filter", description)],
        )


def _allows(field: Field, operator: str) -> bool:
    if field.repeated:
        return operator == ":"
    return operator in _EQUALITY or field.kind not in _UNORDERED


def _text(_field: Field, text: str) -> str:
    return text


def _integer(_field: Field, text: str) -> int:
    if not _INTEGER.fullmatch(text) or not -(2**63) <= int(text) < 2**63:
        raise ValueError("expected a whole number")
    return int(text)


def _boolean(_field: Field, text: str) -> bool:
    if text not in _BOOLEANS:
        raise ValueError("expected true or false")
    return _BOOLEANS[text]


def _id(field: Field, text: str) -> ObjectId | None:
    if not text and field.nullable:
        return None
    if not _ID.fullmatch(text):
        raise ValueError("expected an id of 24 lowercase hex digits")
    return ObjectId(text)


def _enum(field: Field, text: str) -> int:
    number = field.numbers.get(text.lower())
    if number is None:
        raise ValueError(f"{field.path} has no value {text}")
    return number


def _time(_field: Field, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("expected a time like 2026-01-31T00:00:00Z") from None
    if moment.year <= _FIRST_YEAR:
        raise ValueError("expected a time after 1970")
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


_READERS: Final = {
    Kind.TEXT: _text,
    Kind.ID: _id,
    Kind.INTEGER: _integer,
    Kind.BOOLEAN: _boolean,
    Kind.ENUM: _enum,
    Kind.TIME: _time,
}
