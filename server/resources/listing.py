"""Lists: order, keyset pages, search and expanded references as one query to MongoDB."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn

from server.kernel.errors import DomainError, FieldViolation, Reason
from server.resources.fields import Field, Kind
from server.resources.filter import begins_with
from server.resources.model import Document

MAX_ORDER_FIELDS: Final = 4

_ID = Field("id", "_id", Kind.ID, repeated=False, nullable=False, numbers={})
_PART = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.]*)(?:\s+(asc|desc))?\s*(,|$)")


class Order(NamedTuple):
    """What rows are sorted by, 1 or -1 beside it; the last is always the id."""

    parts: tuple[tuple[Field, int], ...]

    @property
    def sort(self) -> dict[str, int]:
        """As MongoDB takes it."""
        return {field.key: direction for field, direction in self.parts}

    def cursor(self, row: Mapping[str, Any]) -> list[Any]:
        """Where `row` stands in the order, as JSON has it."""
        return [field.to_token(row.get(field.key)) for field, _ in self.parts]

    def after(self, cursor: Sequence[Any]) -> Document:
        """The condition on the rows after the one that stands at `cursor`."""
        values = [
            field.from_token(value) for (field, _), value in zip(self.parts, cursor, strict=True)
        ]
        later: list[Document] = []
        same: Document = {}
        for (field, direction), value in zip(self.parts, values, strict=True):
            beyond = _beyond(field, direction, value)
            if beyond is not None:
                later.append({**same, **beyond})
            same[field.key] = value
        (first, direction), value = self.parts[0], values[0]
        if first.nullable:
            return {"$or": later}
        # Said once more for all of them, this is where a walk along the index begins.
        return {first.key: {"$gte" if direction == 1 else "$lte": value}, "$or": later}


def parse_order(text: str, fields: Mapping[str, Field]) -> Order:
    """The order of `order_by`; ORDER_BY_INVALID with the position (from 0) and the field."""
    parts: dict[str, tuple[Field, int]] = {}
    at = 0
    while at < len(text) or not parts:
        match = _PART.match(text, at)
        if match is None or (match[3] == "," and match.end() == len(text)):
            _refuse("expected fields with asc or desc, parted by commas", at)
        name = match[1]
        if name not in fields or name in parts or len(parts) == MAX_ORDER_FIELDS:
            _refuse(f"{name} cannot be sorted by here", match.start(1), name)
        parts[name] = (fields[name], -1 if match[2] == "desc" else 1)
        at = match.end()
    last = next(reversed(parts.values()))[1]
    return Order((*parts.values(), (_ID, last)))


def searching(prefix: str) -> Document:
    """The condition on rows of which a searchable field begins so, in any case."""
    return {"search_keys": {"$elemMatch": begins_with(prefix.casefold())}}


def _beyond(field: Field, direction: int, value: Any) -> Document | None:
    """After `value` in this field; unset sorts before everything, and compares to nothing."""
    if direction == 1:
        return {field.key: {"$gt": value} if value is not None else {"$ne": None}}
    if value is None:
        return None
    before = {field.key: {"$lt": value}}
    return {"$or": [before, {field.key: None}]} if field.nullable else before


def _refuse(why: str, position: int, field: str = "") -> NoReturn:
    description = f"at {position}: {why}"
    raise DomainError(
        Reason.ORDER_BY_INVALID,
        f"order_by, {description}",
        {"position": position, "field": field},
        violations=[FieldViolation("order_by", description)],
    )
