"""A protoc plugin that writes the comments of the contract, for `buf generate`.

Stubs carry no comments, and the gateway's reference needs them: one JSON file for
each .proto, from full names to what stands above them. One line a name, sorted, so
that a change of a comment is a change of a line.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)

OURS = "zaaz/"

_MESSAGES = FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER
_ENUMS = FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER
_SERVICES = FileDescriptorProto.SERVICE_FIELD_NUMBER
_FIELDS = DescriptorProto.FIELD_FIELD_NUMBER
_ONEOFS = DescriptorProto.ONEOF_DECL_FIELD_NUMBER
_NESTED = DescriptorProto.NESTED_TYPE_FIELD_NUMBER
_NESTED_ENUMS = DescriptorProto.ENUM_TYPE_FIELD_NUMBER
_VALUES = EnumDescriptorProto.VALUE_FIELD_NUMBER
_METHODS = ServiceDescriptorProto.METHOD_FIELD_NUMBER

Path = tuple[int, ...]
Named = Iterator[tuple[Path, str]]
"""Where a thing stands in its file, and its full name."""


def names(file: FileDescriptorProto) -> Named:
    """Everything in a file that can have a comment."""
    package = file.package + "."
    yield from _in_messages(file.message_type, (_MESSAGES,), package)
    yield from _in_enums(file.enum_type, (_ENUMS,), package)
    for index, service in enumerate(file.service):
        path, name = (_SERVICES, index), package + service.name
        yield path, name
        yield from _of_all(service.method, (*path, _METHODS), name + ".")


def _in_messages(messages: Sequence[DescriptorProto], above: Path, package: str) -> Named:
    for index, message in enumerate(messages):
        path, name = (*above, index), package + message.name
        yield path, name
        yield from _of_all(message.field, (*path, _FIELDS), name + ".")
        yield from _of_all(message.oneof_decl, (*path, _ONEOFS), name + ".")
        yield from _in_messages(message.nested_type, (*path, _NESTED), name + ".")
        yield from _in_enums(message.enum_type, (*path, _NESTED_ENUMS), name + ".")


def _in_enums(enums: Sequence[EnumDescriptorProto], above: Path, package: str) -> Named:
    for index, enum in enumerate(enums):
        path, name = (*above, index), package + enum.name
        yield path, name
        # In its own scope, unlike in protobuf: where else would one look for it.
        yield from _of_all(enum.value, (*path, _VALUES), name + ".")


def _of_all(things: Sequence[Any], above: Path, scope: str) -> Named:
    for index, thing in enumerate(things):
        yield (*above, index), scope + thing.name


def comments(file: FileDescriptorProto) -> dict[str, str]:
    """Full names to comments, their lines without the space behind `//`."""
    name_of = dict(names(file))
    found = {}
    for location in file.source_code_info.location:
        name = name_of.get(tuple(location.path))
        text = location.leading_comments or location.trailing_comments
        if name and text.strip():
            found[name] = "\n".join(line.strip() for line in text.strip().splitlines())
    return found


def generate(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """One JSON file for each of our .proto files."""
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    wanted = set(request.file_to_generate)
    for file in request.proto_file:
        if file.name in wanted and file.name.startswith(OURS):
            text = json.dumps(comments(file), indent=0, sort_keys=True, ensure_ascii=False)
            response.file.add(name=file.name.removesuffix(".proto") + ".json", content=text + "\n")
    return response


if __name__ == "__main__":
    asked = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(generate(asked).SerializeToString())
