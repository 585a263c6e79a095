"""Types whose JSON is not that of their fields, and the scalars."""

from typing import Final

from google.protobuf.descriptor import FieldDescriptor

from gateway.openapi.rules import Json

_INT64: Final[Json] = {
    "type": "string",
    "format": "int64",
    "pattern": "^(0|-?[1-9][0-9]{0,18})$",
    "examples": ["1000000"],
}
_UINT64: Final[Json] = {
    "type": "string",
    "format": "uint64",
    "pattern": "^(0|[1-9][0-9]{0,19})$",
    "examples": ["1000000"],
}
_INT32: Final[Json] = {
    "type": "integer",
    "format": "int32",
    "minimum": -(2**31),
    "maximum": 2**31 - 1,
}
_UINT32: Final[Json] = {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**32 - 1}
_BYTES: Final[Json] = {"type": "string", "contentEncoding": "base64"}

SCALARS: Final[dict[int, Json]] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_BYTES: _BYTES,
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
}

_TIMESTAMP: Final[Json] = {
    "type": "string",
    "format": "date-time",
    "examples": ["2026-01-31T00:00:00Z"],
}
_DURATION: Final[Json] = {
    "type": "string",
    "pattern": r"^-?[0-9]{1,11}(\.[0-9]{1,9})?s$",
    "examples": ["1.5s"],
}
_FIELD_MASK: Final[Json] = {
    "type": "string",
    "description": "Names of fields, with commas in between.",
    "examples": ["name,description"],
}
_ANY: Final[Json] = {
    "type": "object",
    "properties": {"@type": {"type": "string"}},
    "additionalProperties": True,
}

KNOWN: Final[dict[str, Json]] = {
    "google.protobuf.Timestamp": _TIMESTAMP,
    "google.protobuf.Duration": _DURATION,
    "google.protobuf.FieldMask": _FIELD_MASK,
    "google.protobuf.Any": _ANY,
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Empty": {"type": "object"},
}
"""Messages of google.protobuf by their full names; wrappers are their scalars."""

TEXT: Final = frozenset(
    {"google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask"}
)
"""Those that fit into a query."""


def query_scalar(kind: int) -> Json:
    """A scalar in a path or a query, where an int64 is as good a number as any."""
    schema = SCALARS[kind]
    if schema in (_INT64, _UINT64):
        unsigned = schema is _UINT64
        low, high = (0, 2**64 - 1) if unsigned else (-(2**63), 2**63 - 1)
        return {"type": "integer", "format": schema["format"], "minimum": low, "maximum": high}
    return dict(schema)
