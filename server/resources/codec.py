"""Messages to documents and back. What each field needs is found out once per message type."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from bson.datetime_ms import DatetimeMS
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from server.kernel.ids import parse_id
from server.kernel.json_values import value_of
from server.kernel.timestamps import storable_time, timestamp
from server.resources.fields import date, is_a, is_id, millis
from server.resources.model import Document

Convert: TypeAlias = Callable[[Any], Any] | None
"""None: the value is the same on both sides."""


class Codec:
    """Documents of one message type. `known` are those of the types within it, by name."""

    def __init__(
        self,
        message: type[Message],
        text_ids: Iterable[str] = (),
        known: "dict[str, Codec] | None" = None,
    ) -> None:
        self._make = message
        self._known = {} if known is None else known
        self._known[message.DESCRIPTOR.full_name] = self
        self._text_ids = text_ids
        # By document key. An etag is the row's version.
        self._names: dict[str, str] = {}
        self._decoders: list[tuple[str, Callable[[Any], Any]]] = []
        # Name, document key, conversion, whether it may be unset, whether empty is left out.
        self._encoders: list[tuple[str, str, Convert, bool, bool]] = []
        fields: Any = message.DESCRIPTOR.fields
        for field in fields:
            key = {"id": "_id", "etag": "version"}.get(field.name, field.name)
            decode, encode = (str, None) if key == "version" else self._converters(field)
            self._names[key] = field.name
            if decode is not None:
                self._decoders.append((field.name, decode))
            is_sparse = field.is_repeated or is_id(field, text_ids)
            if key != "version":
                row = (field.name, key, encode, field.has_presence, is_sparse)
                self._encoders.append(row)

    def decode(self, document: Mapping[str, Any]) -> Any:
        """The message; what it has no field for is left out."""
        names = self._names
        values = {
            names[key]: value
            for key, value in document.items()
            if key in names and value is not None
        }
        for name, convert in self._decoders:
            if name in values:
                values[name] = convert(values[name])
        return self._make(**values)

    def replaced(self, document: Document, message: Message) -> Document:
        """The document as the message says; what no message holds stays as it is."""
        own = self._names.keys() - {"version"}
        kept = {key: value for key, value in document.items() if key not in own}
        return kept | self.encode(message)

    def encode(self, message: Message) -> Document:
        """The document: MALFORMED_ID or FIELD_INVALID for what cannot be stored."""
        document: Document = {}
        for name, key, convert, has_presence, is_sparse in self._encoders:
            if has_presence and not message.HasField(name):
                continue
            value = getattr(message, name)
            if value or not is_sparse:
                document[key] = value if convert is None else convert(value)
        return document

    def _converters(self, field: FieldDescriptor) -> tuple[Convert, Convert]:
        """What a value of the field needs on its way out of and into a document."""
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            decode, encode = self._single(message.fields_by_name["value"])
            return _each_value(decode), _each_value(encode) or dict
        decode, encode = self._single(field)
        return (_each(decode), _each(encode) or list) if field.is_repeated else (decode, encode)

    def _single(self, field: FieldDescriptor) -> tuple[Convert, Convert]:
        if is_id(field, self._text_ids):
            return str, lambda text: parse_id(field.name, text)
        if field.message_type is None:
            return None, None
        if is_a(field, "Timestamp"):
            return _timestamp, lambda moment: date(storable_time(field.name, moment))
        if is_a(field, "Value"):
            return value_of, lambda value: json_format.MessageToJson(value, indent=None)
        inner = self._known.get(field.message_type.full_name)
        if inner is None:
            message = message_factory.GetMessageClass(field.message_type)
            inner = Codec(message, self._text_ids, self._known)
        return inner.decode, inner.encode


def _each(convert: Convert) -> Convert:
    return None if convert is None else lambda values: [convert(value) for value in values]


def _each_value(convert: Convert) -> Convert:
    if convert is None:
        return None
    return lambda values: {key: convert(value) for key, value in values.items()}


def _timestamp(moment: datetime | DatetimeMS) -> Timestamp:
    return timestamp(millis(moment) if isinstance(moment, datetime) else int(moment))
