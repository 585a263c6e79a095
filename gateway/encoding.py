"""Messages as proto3 JSON, by encoders that are made once for each message type.

Names are those of the .proto (snake_case), 64-bit integers are strings, enums
their names. A field without presence is written even when it has its default,
so that a client finds the same keys in every answer and need not know the
contract's defaults; an unset message or `optional` field is left out.

Generic code (`json_format`) asks the descriptors about every field of every
message again, which took ten times as long.
"""

import base64
import math
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.values import DURATION, FIELD_MASK, TIMESTAMP, WRAPPERS

Encode = Callable[[Any], Any]
"""A value of protobuf to one that orjson writes."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_OWN_JSON: Final = frozenset(
    f"google.protobuf.{name}" for name in ("Any", "Struct", "Value", "ListValue", "Empty")
)
_INT64: Final = frozenset(
    {
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
    }
)
_SINGLE_DIGITS: Final = range(6, 10)
"""Nine decimal digits tell any two numbers of single precision apart; fewer often do."""


class Encoders:
    """The encoders of all message types that were asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Encode] = {}

    def message(self, descriptor: Descriptor) -> Encode:
        """What encodes messages of this type; made at the first call."""
        name = descriptor.full_name
        made = self._made.get(name)
        if made is None:
            made = _known(descriptor) or self._compiled(descriptor)
        return made

    def field(self, field: FieldDescriptor) -> Encode:
        """What encodes the value of a field: a list or an object where it is repeated."""
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return self._map(field.message_type)
        encode = self._one(field)
        if not field.is_repeated:
            return encode
        return lambda values: [encode(value) for value in values]

    def _one(self, field: FieldDescriptor) -> Encode:
        if field.message_type is not None:
            return self.message(field.message_type)
        if field.enum_type is not None:
            return _enum(field.enum_type)
        return _scalar(field.type)

    def _map(self, entry: Descriptor) -> Encode:
        key_type = entry.fields_by_name["key"].type
        encode = self._one(entry.fields_by_name["value"])
        if key_type == FieldDescriptor.TYPE_BOOL:
            return lambda values: {str(k).lower(): encode(v) for k, v in sorted(values.items())}
        return lambda values: {str(k): encode(values[k]) for k in sorted(values)}

    def _compiled(self, descriptor: Descriptor) -> Encode:
        always: list[tuple[str, Encode]] = []
        when_set: list[tuple[str, Encode]] = []

        def encode(message: Message) -> dict[str, Any]:
            values = {name: each(getattr(message, name)) for name, each in always}
            for name, each in when_set:
                if message.HasField(name):
                    values[name] = each(getattr(message, name))
            return values

        # Known before its fields are: a message may hold messages of its own type.
        self._made[descriptor.full_name] = encode
        for field in descriptor.fields:
            among = when_set if field.has_presence else always
            among.append((field.name, self.field(field)))
        return encode


def to_bytes(value: object) -> bytes:
    """JSON in UTF-8."""
    return orjson.dumps(value)


def _known(descriptor: Descriptor) -> Encode | None:
    name = descriptor.full_name
    if name in WRAPPERS:
        encode = _scalar(descriptor.fields_by_name["value"].type)
        return lambda wrapper: encode(wrapper.value)
    if name in _OWN_JSON:
        return _generic
    return _KNOWN.get(name)


def _same(value: Any) -> Any:
    return value


def _scalar(kind: int) -> Encode:
    if kind in _INT64:
        return str
    if kind == FieldDescriptor.TYPE_FLOAT:
        return _single
    if kind == FieldDescriptor.TYPE_DOUBLE:
        return _float
    return _base64 if kind == FieldDescriptor.TYPE_BYTES else _same


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _single(value: float) -> float | str:
    """The shortest number that is this one in single precision: 0.1, not 0.10000000149011612."""
    if not math.isfinite(value):
        return _float(value)
    shorter = (float(f"{value:.{digits}g}") for digits in _SINGLE_DIGITS)
    return next((each for each in shorter if _is_single(each, value)), value)


def _is_single(number: float, single: float) -> bool:
    try:
        return bool(struct.unpack("f", struct.pack("f", number))[0] == single)
    except OverflowError:
        return False


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _enum(enum: EnumDescriptor) -> Encode:
    names: dict[int, str] = {}
    for value in enum.values:
        names.setdefault(value.number, value.name)
    return lambda number: names.get(number, number)


def _timestamp(value: Timestamp) -> str:
    """RFC 3339 in UTC, with 0, 3, 6 or 9 digits of a second."""
    text = (_EPOCH + timedelta(seconds=value.seconds)).isoformat()[:19]
    nanos = value.nanos
    if not nanos:
        return text + "Z"
    if nanos % 1_000_000 == 0:
        return f"{text}.{nanos // 1_000_000:03}Z"
    if nanos % 1_000 == 0:
        return f"{text}.{nanos // 1_000:06}Z"
    return f"{text}.{nanos:09}Z"


def _duration(value: Duration) -> str:
    return value.ToJsonString()


def _field_mask(value: FieldMask) -> str:
    return ",".join(value.paths)


def _generic(message: Message) -> Any:
    try:
        return json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    except (TypeError, json_format.Error):
        # An Any of a type that this gateway does not know is no reason to withhold the rest.
        fields = message.ListFields()
        return {
            field.name: _base64(value) if isinstance(value, bytes) else str(value)
            for field, value in fields
        }


_KNOWN: Final[dict[str, Encode]] = {
    TIMESTAMP: _timestamp,
    DURATION: _duration,
    FIELD_MASK: _field_mask,
}
