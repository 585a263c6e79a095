"""proto3 JSON into messages: names either as in the .proto or in lowerCamel.

Every error names its field by the .proto's names: `wallet.grants[2].priority`.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gateway.fields import fields_by_json_name, read, refuse_second_of_oneof
from gateway.refusals import field_invalid, malformed
from gateway.values import parser_of

MAX_DEPTH: Final = 64
"""JSON that is nested deeper is refused."""

_Set = Callable[[Message, Any, str], None]
"""Puts a JSON value into a message; the text is the path of the message, with its dot."""

_OWN_JSON: Final = frozenset(
    f"google.protobuf.{name}" for name in ("Any", "Struct", "Value", "ListValue", "Empty")
)


def parse_json(data: bytes) -> Any:
    """The JSON document in `data`, or a Refusal. A key that stands twice is refused.

    Not orjson, which would let the last of two keys win: what reads the same
    bytes elsewhere may have taken the first.
    """
    try:
        document = json.loads(
            data.decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant
        )
    except UnicodeDecodeError:
        raise malformed("the body is not UTF-8") from None
    except RecursionError:
        raise malformed(f"the body is nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise malformed(f"the body is not JSON: {error}") from None
    return document


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise field_invalid(twice[:100], "stands twice in one object")
    return values


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


class Decoders:
    """The decoders of all message types that were asked for."""

    def __init__(self) -> None:
        self._made: dict[str, _MessageDecoder] = {}

    def message(self, descriptor: Descriptor) -> "_MessageDecoder":
        """What decodes messages of this type; made at the first call."""
        made = self._made.get(descriptor.full_name)
        if made is None:
            made = self._made[descriptor.full_name] = _MessageDecoder(descriptor, self)
        return made

    def field(self, field: FieldDescriptor) -> _Set:
        """What decodes the value of a field into its message."""
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return self._map(field)
        if field.is_repeated:
            return self._repeated(field)
        return self._singular(field)

    def _singular(self, field: FieldDescriptor) -> _Set:
        name, parse = field.name, parser_of(field)
        if parse is None:
            return self._submessage(field)
        is_message = field.message_type is not None

        def put(message: Message, value: Any, where: str) -> None:
            parsed = read(parse, value, where + name)
            if is_message:
                getattr(message, name).CopyFrom(parsed)
            else:
                setattr(message, name, parsed)

        return put

    def _submessage(self, field: FieldDescriptor) -> _Set:
        name, into = field.name, self._into(_message_of(field))

        def put(message: Message, value: Any, where: str) -> None:
            inner = getattr(message, name)
            inner.SetInParent()
            into(inner, value, where + name)

        return put

    def _into(self, descriptor: Descriptor) -> _Set:
        """Fills a message of this type from a JSON value."""
        if descriptor.full_name in _OWN_JSON:
            return _generic
        # Looked up when used: a message may hold messages of its own type.
        return lambda message, value, where: self.message(descriptor).fill(message, value, where)

    def _repeated(self, field: FieldDescriptor) -> _Set:
        name, add = field.name, self._adder(field)

        def put(message: Message, value: Any, where: str) -> None:
            if not isinstance(value, list):
                raise field_invalid(where + name, "must be a list")
            values = getattr(message, name)
            for index, item in enumerate(value):
                add(values, item, f"{where}{name}[{index}]")

        return put

    def _adder(self, field: FieldDescriptor) -> Callable[[Any, Any, str], None]:
        parse = parser_of(field)
        if parse is not None:
            return lambda values, item, where: values.append(read(parse, item, where))
        into = self._into(_message_of(field))
        return lambda values, item, where: into(values.add(), item, where)

    def _map(self, field: FieldDescriptor) -> _Set:
        name, entry = field.name, _message_of(field).fields_by_name
        parse_key = parser_of(entry["key"])
        put_value = self._map_value(entry["value"])
        assert parse_key is not None

        def put(message: Message, value: Any, where: str) -> None:
            if not isinstance(value, dict):
                raise field_invalid(where + name, "must be an object")
            values = getattr(message, name)
            for key, item in value.items():
                place = f"{where}{name}[{key[:100]}]"
                put_value(values, read(parse_key, key, place), item, place)

        return put

    def _map_value(self, field: FieldDescriptor) -> Callable[[Any, Any, Any, str], None]:
        parse = parser_of(field)
        if parse is None:
            into = self._into(_message_of(field))
            return lambda values, key, item, where: into(values[key], item, where)
        if field.message_type is not None:
            return lambda values, key, item, where: values[key].CopyFrom(read(parse, item, where))

        def put(values: Any, key: Any, item: Any, where: str) -> None:
            values[key] = read(parse, item, where)

        return put


class _MessageDecoder:
    def __init__(self, descriptor: Descriptor, decoders: Decoders) -> None:
        self._fields: Mapping[str, FieldDescriptor] = fields_by_json_name(descriptor)
        self._decoders = decoders
        self._setters: dict[str, _Set] = {}

    def fill(self, message: Message, value: Any, where: str = "") -> None:
        """`message` with the fields of a JSON object. `where`: the path of `message` itself."""
        if not isinstance(value, dict):
            if where:
                raise field_invalid(where, "must be an object")
            raise malformed("the body must be a JSON object")
        inside = where + "." if where else ""
        if inside.count(".") > MAX_DEPTH:
            raise malformed(f"the body is nested more than {MAX_DEPTH} deep")
        seen = set()
        for name, item in value.items():
            field = self._fields.get(name)
            if field is None:
                raise field_invalid(inside + name[:100], "is no field")
            if field.name in seen:
                raise field_invalid(inside + field.name, "stands twice in one object")
            seen.add(field.name)
            if item is not None or _takes_null(field):
                refuse_second_of_oneof(message, field, inside + field.name)
                self._setter(field)(message, item, inside)

    def _setter(self, field: FieldDescriptor) -> _Set:
        setter = self._setters.get(field.name)
        if setter is None:
            setter = self._setters[field.name] = self._decoders.field(field)
        return setter


def _message_of(field: FieldDescriptor) -> Descriptor:
    if field.message_type is None:
        raise TypeError(f"{field.full_name} is no message")
    return field.message_type


def _takes_null(field: FieldDescriptor) -> bool:
    return field.message_type is not None and (
        field.message_type.full_name == "google.protobuf.Value" and not field.is_repeated
    )


def _generic(message: Message, value: Any, where: str) -> None:
    try:
        json_format.ParseDict(value, message)
    except (json_format.Error, TypeError, ValueError, RecursionError):
        raise field_invalid(where, f"is no {message.DESCRIPTOR.full_name}") from None
