"""Fields of a message as rows, filters and page tokens see them: where they are, of which kind."""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from bson import ObjectId
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

_CALLERS_OWN: Final = frozenset({"request_id", "client_id", "writer_id"})
"""Text wherever it stands, though it is called an id."""

_INTEGERS: Final = frozenset(
    (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT32)
)
_ALWAYS_SET: Final = frozenset(
    {"id", "created_time", "updated_time", "effective_time", "occurred_time"}
)
"""In every document whose message has them. Where it is known, a page begins in an index."""

_UNSPECIFIED = "UNSPECIFIED"


class Kind(Enum):
    """What a field's values are, and so how they are written in a filter and in a page token."""

    TEXT = auto()
    ID = auto()
    INTEGER = auto()
    BOOLEAN = auto()
    ENUM = auto()
    TIME = auto()


class Field(NamedTuple):
    """A field by its path in the message; `key` is its path in a document.

    `nullable`: a document may be without it. `numbers`: an enum's, by name in lower case.
    """

    path: str
    key: str
    kind: Kind
    repeated: bool
    nullable: bool
    numbers: dict[str, int]

    def to_token(self, value: Any) -> Any:
        """A value from a document as JSON has it."""
        if self.kind is Kind.TIME and value is not None:
            return millis(value)
        return str(value) if isinstance(value, ObjectId) else value

    def from_token(self, value: Any) -> Any:
        """The same value again."""
        if value is not None and self.kind is Kind.TIME:
            return date(value)
        return ObjectId(value) if value is not None and self.kind is Kind.ID else value


def date(time_ms: int) -> datetime:
    """A time as MongoDB takes it."""
    seconds, milliseconds = divmod(time_ms, 1_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=milliseconds * 1_000)


def millis(moment: datetime) -> int:
    """A time from MongoDB, in milliseconds since the epoch."""
    return int(moment.timestamp()) * 1_000 + moment.microsecond // 1_000


def is_id(field: FieldDescriptor, text_ids: Iterable[str] = ()) -> bool:
    """Whether the field holds ObjectIds: text that is called an id and is not the caller's own."""
    name = field.name
    return (
        field.cpp_type == FieldDescriptor.CPPTYPE_STRING
        and (name in ("id", "ids") or name.endswith(("_id", "_ids")))
        and name not in _CALLERS_OWN
        and name not in text_ids
    )


def fields_of(message: Any, paths: Iterable[str], text_ids: Iterable[str] = ()) -> dict[str, Field]:
    """The fields at `paths`, by path. ValueError for one that cannot be compared."""
    return {path: _field(message, path, text_ids) for path in paths}


def _field(message: Any, path: str, text_ids: Iterable[str]) -> Field:
    descriptor = message.fields_by_name[path]
    kind = _kind(descriptor, text_ids)
    nullable = path not in _ALWAYS_SET and (descriptor.has_presence or kind is Kind.ID)
    numbers = _numbers(descriptor.enum_type) if descriptor.enum_type is not None else {}
    key = "_id" if path == "id" else path
    return Field(path, key, kind, descriptor.is_repeated, nullable, numbers)


def _kind(field: FieldDescriptor, text_ids: Iterable[str]) -> Kind:
    if field.cpp_type in _INTEGERS:
        return Kind.INTEGER
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return Kind.ID if is_id(field, text_ids) else Kind.TEXT
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return Kind.BOOLEAN
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return Kind.ENUM
    if (
        field.message_type is not None
        and field.message_type.full_name == "google.protobuf.Timestamp"
    ):
        return Kind.TIME
    raise ValueError(f"{field.full_name} cannot be filtered or sorted by")


def _numbers(enum: EnumDescriptor) -> dict[str, int]:
    """By full name and by what follows the enum's own prefix: ai_model_kind_llm, llm."""
    prefix = enum.values_by_number[0].name.removesuffix(_UNSPECIFIED)
    full = {value.name.lower(): value.number for value in enum.values}
    short = {value.name.removeprefix(prefix).lower(): value.number for value in enum.values}
    return {**short, **full}
