"""The captured parts of an interaction: what is kept of a JSON value. Pure.

A part is kept as JSON text: dots, dollars and zero bytes in keys are harmless there, and no filter
looks into it. What does not fit is left out from the end, so that what is kept is JSON still:
strings are shortened, of arrays the first items stay, of objects the first keys in their order.
"""

import math
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import orjson
from google.protobuf.struct_pb2 import Value

from server.credits.feature_usage.secrets import REDACTED, is_card, is_secret, redact

MAX_PART_BYTES: Final = 16 * 1_024
"""Of a part's JSON text."""

MAX_DEPTH: Final = 16
"""What is nested deeper is left out."""

TOO_DEEP: Final = "[truncated]"
"""Stands where something was nested too deep."""

_LOOK_AHEAD: Final = 256
"""Characters past the cut that are looked at, so that no secret is cut in half and missed."""

_EMPTY_BYTES: Final = 2
"""Of an empty string, array or object."""

_NOT_FINITE: Final = {math.inf: "Infinity", -math.inf: "-Infinity"}

_LEFT_OUT: Final = object()


class Part(NamedTuple):
    """A part as it is kept: JSON text of at most MAX_PART_BYTES, and whether that is not all."""

    text: str
    truncated: bool


def keep(value: Value) -> Part:
    """`value` redacted and cut to size, the same for the same value."""
    room = _Room(MAX_PART_BYTES)
    kept = room.take(value, 0)
    return Part(orjson.dumps(kept).decode(), room.truncated)


class _Room:
    """The bytes that are left, as one value after the other takes its share."""

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes
        self.truncated = False

    def take(self, value: Value, depth: int) -> Any:
        """What is kept of the value; _LEFT_OUT when there is no room for it."""
        match value.WhichOneof("kind"):
            case "string_value":
                return self._text(value.string_value)
            case "struct_value" | "list_value" as kind:
                return self._container(value, kind, depth)
            case "number_value":
                return self._number(value.number_value)
            case "bool_value":
                return self._atom(value.bool_value)
            case _:
                return self._atom(None)

    def _container(self, value: Value, kind: str, depth: int) -> Any:
        if depth >= MAX_DEPTH:
            self.truncated = True
            return self._atom(TOO_DEEP)
        if not self._spend(_EMPTY_BYTES):
            return _LEFT_OUT
        if kind == "list_value":
            return list(self._items(value, depth + 1))
        return dict(self._fields(value, depth + 1))

    def _items(self, value: Value, depth: int) -> Iterator[Any]:
        for item in value.list_value.values:
            kept = self.take(item, depth) if self._spend(1) else _LEFT_OUT
            if kept is _LEFT_OUT:
                self.truncated = True
                return
            yield kept

    def _fields(self, value: Value, depth: int) -> Iterator[tuple[str, Any]]:
        fields = value.struct_value.fields
        # A protobuf map has no order of its own.
        for key in sorted(fields):
            shown = redact(key) if len(key) < self._left else key
            kept: Any = _LEFT_OUT
            if self._spend(len(orjson.dumps(shown)) + 2):
                kept = self._field(key, fields[key], depth)
            if kept is _LEFT_OUT:
                self.truncated = True
                return
            yield shown, kept

    def _field(self, key: str, value: Value, depth: int) -> Any:
        kind = value.WhichOneof("kind")
        if kind not in (None, "null_value") and is_secret(key, of_number=kind == "number_value"):
            return self._atom(REDACTED)
        return self.take(value, depth)

    def _number(self, number: float) -> Any:
        if not math.isfinite(number):
            # JSON has no such numbers; as in protobuf's own JSON they are text.
            return self._atom(_NOT_FINITE.get(number, "NaN"))
        if number.is_integer() and is_card(str(int(number))):
            return self._atom(REDACTED)
        return self._atom(number)

    def _text(self, text: str) -> Any:
        if self._left < _EMPTY_BYTES:
            return _LEFT_OUT
        within = text[: self._left + _LOOK_AHEAD]
        shown = redact(within)
        if len(within) < len(text):
            self.truncated = True
            shown = shown[:-_LOOK_AHEAD]
        fitting = _shortened(shown, self._left)
        self.truncated |= len(fitting) < len(shown)
        return self._atom(fitting)

    def _atom(self, atom: object) -> Any:
        return atom if self._spend(len(orjson.dumps(atom))) else _LEFT_OUT

    def _spend(self, size_bytes: int) -> bool:
        if size_bytes > self._left:
            return False
        self._left -= size_bytes
        return True


def _shortened(text: str, room_bytes: int) -> str:
    """The beginning of the text whose JSON fits; at least the empty one does."""
    while (size := len(orjson.dumps(text))) > room_bytes:
        text = text[: min(len(text) - 1, len(text) * room_bytes // size)]
    return text
