"""The order of a list, and where in it a page goes on: no page is more work than the first."""

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn

import bson
from bson.codec_options import CodecOptions

from server.kernel.errors import Reason, refused
from server.resources.fields import Field
from server.resources.model import Document

MAX_ORDER_FIELDS: Final = 4

_ID: Final = Field("id", "_id", str, frozenset(), nullable=False)
_PART = re.compile(r"\s*([A-Za-z_]\w*)(?:\s+(asc|desc))?\s*(?:$|,(?=.))", re.ASCII | re.DOTALL)
_AWARE: Final[CodecOptions[Document]] = CodecOptions(tz_aware=True)


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
