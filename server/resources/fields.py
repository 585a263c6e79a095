"""Fields as filters and orders see them, and what their values are in a document."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NamedTuple

from bson import ObjectId
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

_CALLERS_OWN: Final = frozenset({"request_id", "client_id", "writer_id"})
"""Text wherever it stands, though it is called an id."""

_EQUALITY: Final = frozenset(("=", "!=", ":"))
_ALL: Final = _EQUALITY | {"<", "<=", ">", ">="}
_CONTAINS: Final = frozenset((":",))

_ID_DIGITS = 24
_FIRST_YEAR = 1970
_UNSPECIFIED = "UNSPECIFIED"


class Field(NamedTuple):
    """A field by its name; `key` is its name in a document, which may be without it: `nullable`.

    `read` takes a filter's literal; ValueError says what it should be.
    """

    name: str
    key: str
    read: Callable[[str], Any]
    operators: frozenset[str]
    nullable: bool

    @property
    def is_text(self) -> bool:
        """Whether it is one text, which may begin with another."""
        return self.read is str and self.operators is _ALL


def date(time_ms: int) -> datetime:
    """A time as MongoDB takes it."""
    seconds, milliseconds = divmod(time_ms, 1_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=milliseconds * 1_000)


def millis(moment: datetime) -> int:
    """A time from MongoDB, in milliseconds since the epoch."""
    return int(moment.timestamp()) * 1_000 + moment.microsecond // 1_000


def is_id(field: Any, text_ids: Iterable[str] = ()) -> bool:
    """Whether the field holds ObjectIds: text that is called an id and is not the caller's own."""
    name = field.name
    is_called_so = name in ("id", "ids") or name.endswith(("_id", "_ids"))
    is_text = field.cpp_type == FieldDescriptor.CPPTYPE_STRING
    return is_text and is_called_so and name not in _CALLERS_OWN and name not in text_ids


def is_a(field: FieldDescriptor, message: str) -> bool:
    """Whether the field is a google.protobuf `message`."""
    inside = field.message_type
    return inside is not None and inside.full_name == f"google.protobuf.{message}"


def fields_of(message: Any, names: Iterable[str], text_ids: Iterable[str] = ()) -> dict[str, Field]:
    """These fields of a descriptor. ValueError for one that cannot be compared."""
    return {name: _field(message.fields_by_name[name], text_ids) for name in names}


def _field(field: FieldDescriptor, text_ids: Iterable[str]) -> Field:
    key = "_id" if field.name == "id" else field.name
    read = _reader(field, text_ids)
    operators = _ALL if read in (str, _integer, _time) else _EQUALITY
    nullable = field.has_presence or read is _id
    return Field(field.name, key, read, _CONTAINS if field.is_repeated else operators, nullable)


def _reader(field: FieldDescriptor, text_ids: Iterable[str]) -> Callable[[str], Any]:
    if is_id(field, text_ids):
        return _id
    if field.enum_type is not None:
        return partial(_enum, _numbers(field.enum_type))
    if is_a(field, "Timestamp"):
        return _time
    if field.cpp_type in _READERS:
        return _READERS[field.cpp_type]
    raise ValueError(f"{field.full_name} cannot be filtered or sorted by")


def _numbers(enum: EnumDescriptor) -> dict[str, int]:
    """By full name and by what follows the enum's own prefix: ai_model_kind_llm, llm."""
    prefix = enum.values_by_number[0].name.removesuffix(_UNSPECIFIED)
    full = {value.name.lower(): value.number for value in enum.values}
    return {name.removeprefix(prefix.lower()): number for name, number in full.items()} | full


def _enum(numbers: dict[str, int], text: str) -> int:
    if text.lower() not in numbers:
        raise ValueError(f"there is no {text}")
    return numbers[text.lower()]


def _integer(text: str) -> int:
    if not (text.isascii() and text.removeprefix("-").isdigit() and -(2**63) <= int(text) < 2**63):
        raise ValueError("expected a whole number")
    return int(text)


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("expected true or false")
    return text == "true"


def _id(text: str) -> ObjectId | None:
    """None for "": unset."""
    if text and not (len(text) == _ID_DIGITS and ObjectId.is_valid(text)):
        raise ValueError("expected an id of 24 hex digits")
    return ObjectId(text) if text else None


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        if moment.year > _FIRST_YEAR:
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("expected a time like 2026-01-31T00:00:00Z")


_READERS: Final[dict[int, Callable[[str], Any]]] = {
    FieldDescriptor.CPPTYPE_STRING: str,
    FieldDescriptor.CPPTYPE_BOOL: _boolean,
    FieldDescriptor.CPPTYPE_INT32: _integer,
    FieldDescriptor.CPPTYPE_INT64: _integer,
}
