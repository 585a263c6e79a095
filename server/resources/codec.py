"""Messages to documents and back. What each field needs is found out once per message type."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from google.protobuf import json_format, message_factory, struct_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from server.kernel.ids import parse_id
from server.kernel.timestamps import storable_time
from server.resources.fields import date, is_id
from server.resources.model import Document

Convert: TypeAlias = Callable[[Any], Any]


class _Encoder:
    """One field of a message on its way into a document."""

    __slots__ = ("convert", "has_presence", "is_id", "is_many", "name")

    def __init__(self, field: FieldDescriptor, convert: Convert | None, *, is_id: bool) -> None:
        self.name = field.name
        self.convert = convert
        self.is_id = is_id
        self.is_many = field.is_repeated
        self.has_presence = field.has_presence

    def put(self, message: Message, document: Document) -> None:
        """Store the field's value; nothing where it is not set."""
        if self.has_presence and not message.HasField(self.name):
            return
        value = getattr(message, self.name)
        if (self.is_id or self.is_many) and not value:
            return
        document["_id" if self.name == "id" else self.name] = (
            self.convert(value) if self.convert is not None else value
        )


class Codec:
    """Documents of one message type."""

    def __init__(self, message: type[Message], text_ids: Iterable[str] = ()) -> None:
        self._text_ids = frozenset(text_ids)
        self._compiled: dict[str, _Compiled] = {}
        self._root = self._compile(message.DESCRIPTOR)

    def decode(self, document: Mapping[str, Any]) -> Any:
        """The message; what it has no field for is left out."""
        return self._root.decode(document)

    def encode(self, message: Message) -> Document:
        """The document: MALFORMED_ID or FIELD_INVALID for what cannot be stored."""
        return self._root.encode(message)

    def _compile(self, descriptor: Any) -> "_Compiled":
        known = self._compiled.get(descriptor.full_name)
        if known is not None:
            return known
        made = self._compiled[descriptor.full_name] = _Compiled(descriptor)
        for field in descriptor.fields:
            if field.name == "etag":
                made.decoders["version"] = ("etag", str)
                continue
            decode, encode = self._converters(field)
            key = "_id" if field.name == "id" else field.name
            made.decoders[key] = (field.name, decode)
            made.encoders.append(_Encoder(field, encode, is_id=is_id(field, self._text_ids)))
        return made

    def _converters(self, field: FieldDescriptor) -> tuple[Convert | None, Convert | None]:
        """What a value of the field needs on its way out of and into a document; None: nothing."""
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            decode, encode = self._single(message.fields_by_name["value"])
            return _each_value(decode), _each_value(encode) or dict
        decode, encode = self._single(field)
        if field.is_repeated:
            return _each(decode), _each(encode) or list
        return decode, encode

    def _single(self, field: FieldDescriptor) -> tuple[Convert | None, Convert | None]:
        if is_id(field, self._text_ids):
            return str, lambda text: parse_id(field.name, text)
        if field.message_type is None:
            return None, None
        if field.message_type.full_name == "google.protobuf.Timestamp":
            return _timestamp, lambda moment: date(storable_time(field.name, moment))
        if field.message_type.full_name == "google.protobuf.Value":
            return _value, _json
        inner = self._compile(field.message_type)
        return inner.decode, inner.encode


class _Compiled:
    """One message type. `decoders`: by document key, the field's name and its conversion."""

    __slots__ = ("decoders", "encoders", "make")

    def __init__(self, descriptor: Descriptor) -> None:
        self.make: type[Message] = message_factory.GetMessageClass(descriptor)
        self.decoders: dict[str, tuple[str, Convert | None]] = {}
        self.encoders: list[_Encoder] = []

    def decode(self, document: Mapping[str, Any]) -> Message:
        decoders, values = self.decoders, {}
        for key, value in document.items():
            decoder = decoders.get(key)
            if decoder is not None and value is not None:
                name, convert = decoder
                values[name] = value if convert is None else convert(value)
        return self.make(**values)

    def encode(self, message: Message) -> Document:
        document: Document = {}
        for encoder in self.encoders:
            encoder.put(message, document)
        return document


def _each(convert: Convert | None) -> Convert | None:
    return None if convert is None else lambda values: [convert(value) for value in values]


def _each_value(convert: Convert | None) -> Convert | None:
    if convert is None:
        return None
    return lambda values: {key: convert(value) for key, value in values.items()}


def _timestamp(moment: datetime) -> Timestamp:
    return Timestamp(seconds=int(moment.timestamp()), nanos=moment.microsecond * 1_000)


def _json(value: struct_pb2.Value) -> str:
    return json_format.MessageToJson(value, indent=None)


def _value(text: str) -> struct_pb2.Value:
    return json_format.Parse(text, struct_pb2.Value())
