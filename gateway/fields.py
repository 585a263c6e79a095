"""What reading a query, a path and a JSON body have in common: fields by name, and refusals."""

from functools import lru_cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gateway.refusals import field_invalid
from gateway.values import BadValueError, Parser, parser_of

MAX_KNOWN: Final = 4_096
"""Messages, and fields, whose readers are kept. A contract has fewer."""


@lru_cache(MAX_KNOWN)
def fields_by_json_name(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """The fields of a message under both of their names: snake_case and lowerCamel."""
    by_name = {field.json_name: field for field in descriptor.fields}
    return {**by_name, **{field.name: field for field in descriptor.fields}}


def read(parse: Parser, value: Any, path: str) -> Any:
    """`parse(value)`; a Refusal that names `path`."""
    try:
        return parse(value)
    except BadValueError as error:
        raise field_invalid(path, str(error)) from None


def put_text(owner: Message, field: FieldDescriptor, path: str, text: str) -> None:
    """One value into `field` of `owner`; `path` names it in a Refusal."""
    parse = _parser_of(field)
    if parse is None:
        raise field_invalid(path, "is a message: name one of its fields")
    value = read(parse, text, path)
    if field.is_repeated:
        getattr(owner, field.name).append(value)
        return
    refuse_second_of_oneof(owner, field, path)
    if field.message_type is not None:
        getattr(owner, field.name).CopyFrom(value)
    else:
        setattr(owner, field.name, value)


def refuse_second_of_oneof(message: Message, field: FieldDescriptor, path: str) -> None:
    """A Refusal if another field of the same oneof is set."""
    oneof = field.containing_oneof
    if oneof is None:
        return
    other = message.WhichOneof(oneof.name)
    if other is not None and other != field.name:
        raise field_invalid(path, f"cannot stand beside {other}")


_parser_of = lru_cache(MAX_KNOWN)(parser_of)
