"""Single values of the contract, as text (in a path, in a query) and as JSON.

A `Parser` takes what stands in a JSON document and returns what protobuf takes;
text is read by the same parsers, as proto3 JSON lets every number be a string.
"""

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf import (
    duration_pb2,
    field_mask_pb2,
    message_factory,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

Parser = Callable[[Any], Any]
"""A JSON value to protobuf's. BadValueError says what would be right."""

WRAPPERS: Final = frozenset(
    wrapper.DESCRIPTOR.full_name
    for wrapper in (
        wrappers_pb2.BoolValue,
        wrappers_pb2.BytesValue,
        wrappers_pb2.DoubleValue,
        wrappers_pb2.FloatValue,
        wrappers_pb2.Int32Value,
        wrappers_pb2.Int64Value,
        wrappers_pb2.StringValue,
        wrappers_pb2.UInt32Value,
        wrappers_pb2.UInt64Value,
    )
)
TIMESTAMP: Final = timestamp_pb2.Timestamp.DESCRIPTOR.full_name
DURATION: Final = duration_pb2.Duration.DESCRIPTOR.full_name
FIELD_MASK: Final = field_mask_pb2.FieldMask.DESCRIPTOR.full_name

MAX_MASK_PATHS: Final = 100
"""More paths than these no field mask has."""

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,19})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_MAX_NUMBER_CHARACTERS: Final = 400
_CAMEL = re.compile("[A-Z]")
_BASE64_URL: Final = str.maketrans("-_", "+/")


class BadValueError(Exception):
    """A value that its field does not take; the message completes "<field>: ..."."""


def parser_of(field: FieldDescriptor) -> Parser | None:
    """What reads one value of `field`; None for a message that has fields of its own."""
    if field.message_type is not None:
        return _message_parser(field.message_type)
    if field.enum_type is not None:
        return _enum_parser(field.enum_type)
    return _SCALARS[field.type]


def _integer(low: int, high: int) -> Parser:
    def parse(value: object) -> int:
        number = _as_integer(value)
        if number is None or not low <= number <= high:
            raise BadValueError(f"must be an integer from {low} to {high}")
        return number

    return parse


def _as_integer(value: object) -> int | None:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return None


def _float(value: object) -> float:
    if isinstance(value, str):
        number = _float_of_text(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = _finite(value)
    else:
        number = None
    if number is None:
        raise BadValueError("must be a number")
    return number


def _float_of_text(text: str) -> float | None:
    if text in _NOT_FINITE:
        return _NOT_FINITE[text]
    if len(text) > _MAX_NUMBER_CHARACTERS or not _NUMBER.fullmatch(text):
        return None
    return _finite(float(text))


def _finite(number: float) -> float | None:
    try:
        number = float(number)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _single(value: object) -> float:
    number = _float(value)
    if math.isfinite(number) and abs(number) > _MAX_SINGLE:
        raise BadValueError("must be a number of single precision")
    return number


_MAX_SINGLE: Final = 3.4028234663852886e38


def _bool(value: object) -> bool:
    if value is True or value == "true":
        return True
    if value is False or value == "false":
        return False
    raise BadValueError("must be true or false")


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise BadValueError("must be a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadValueError("must be a string of whole Unicode characters") from None
    return value


def _bytes(value: object) -> bytes:
    text = _string(value).translate(_BASE64_URL).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise BadValueError("must be base64") from None


_INT32 = _integer(-(2**31), 2**31 - 1)
_INT64 = _integer(-(2**63), 2**63 - 1)
_UINT32 = _integer(0, 2**32 - 1)
_UINT64 = _integer(0, 2**64 - 1)

_SCALARS: Final[Mapping[int, Parser]] = {
    FieldDescriptor.TYPE_DOUBLE: _float,
    FieldDescriptor.TYPE_FLOAT: _single,
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
    FieldDescriptor.TYPE_BOOL: _bool,
    FieldDescriptor.TYPE_STRING: _string,
    FieldDescriptor.TYPE_BYTES: _bytes,
}


def _enum_parser(enum: EnumDescriptor) -> Parser:
    numbers = {name: value.number for name, value in enum.values_by_name.items()}
    names = ", ".join(numbers)

    def parse(value: object) -> int:
        if isinstance(value, str) and value in numbers:
            return numbers[value]
        try:
            number: int = _INT32(value)
        except BadValueError:
            raise BadValueError(f"must be one of {names}") from None
        return number

    return parse


def _message_parser(message: Descriptor) -> Parser | None:
    if message.full_name in WRAPPERS:
        return _wrapper_parser(message)
    return _KNOWN_MESSAGES.get(message.full_name)


def _wrapper_parser(message: Descriptor) -> Parser:
    parse = _SCALARS[message.fields_by_name["value"].type]
    make: Callable[..., Message] = message_factory.GetMessageClass(message)
    return lambda value: make(value=parse(value))


def _timestamp(value: object) -> timestamp_pb2.Timestamp:
    made = timestamp_pb2.Timestamp()
    try:
        made.FromJsonString(_string(value))
    except (ValueError, OverflowError):
        raise BadValueError("must be a time as in 2026-01-31T00:00:00Z") from None
    return made


def _duration(value: object) -> duration_pb2.Duration:
    made = duration_pb2.Duration()
    try:
        made.FromJsonString(_string(value))
    except (ValueError, OverflowError):
        raise BadValueError("must be a duration in seconds, as in 1.5s") from None
    return made


def _field_mask(value: object) -> field_mask_pb2.FieldMask:
    paths = [path for path in _string(value).split(",") if path]
    if len(paths) > MAX_MASK_PATHS:
        raise BadValueError(f"must have at most {MAX_MASK_PATHS} paths")
    return field_mask_pb2.FieldMask(paths=map(snake_case, paths))


def snake_case(name: str) -> str:
    """lowerCamel as snake_case; what is snake_case already stays."""
    return _CAMEL.sub(lambda match: "_" + match.group().lower(), name)


_KNOWN_MESSAGES: Final[Mapping[str, Parser]] = {
    TIMESTAMP: _timestamp,
    DURATION: _duration,
    FIELD_MASK: _field_mask,
}
