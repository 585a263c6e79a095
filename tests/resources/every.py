"""Any declared resource as a caller meets it: its RPCs, found by the declaration, and valid rows.

Nothing here knows a resource by name, so one that is declared is tested.
"""

import re
import sys
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from zaaz.common.v1 import access_pb2

from server.resources.fields import is_id
from server.resources.model import OUTPUT_ONLY, Resource
from server.rpc.validation import violations
from tests.serving import Served, new_key

MAX_REPAIRS = 20
ONE = ("Get", "Create", "Update", "Delete", "Restore", "Purge")
READS = ("Get", "List")
WRITES = ("Create", "Update", "Delete", "BatchDelete", "Restore", "Purge")


class Kind:
    """A resource with the methods that serve it, by verb."""

    def __init__(self, resource: Resource, all_resources: dict[str, Resource]) -> None:
        self.resource = resource
        self.name = resource.message.DESCRIPTOR.name
        self.field = re.sub(r"(?<!^)(?=[A-Z])", "_", self.name).lower()
        self.methods = dict(_methods(resource))
        self._all = all_resources

    def request(self, verb: str, **fields: Any) -> Any:
        return GetMessageClass(self.methods[verb].input_type)(**fields)

    def expands(self, verb: str) -> bool:
        return "expand" in self.methods[verb].input_type.fields_by_name

    def takes(self, verb: str, field: str) -> bool:
        return field in self.methods[verb].input_type.fields_by_name

    async def call(self, served: Served, verb: str, **fields: Any) -> Any:
        return await call(served, self.methods[verb], self.request(verb, **fields))

    async def one(self, served: Served, verb: str, **fields: Any) -> Any:
        """The row that the answer holds."""
        return getattr(await self.call(served, verb, **fields), self.field)

    async def rows(self, served: Served, **query: Any) -> list[Any]:
        answer = await self.call(served, "List", **query)
        return list(getattr(answer, repeated(answer)))

    async def new(self, served: Served, **fields: Any) -> Any:
        """A row that was created, of a name of its own and of references of its own."""
        return await self.one(served, "Create", **{self.field: await self.valid(served, **fields)})

    async def valid(self, served: Served, **fields: Any) -> Any:
        """A message that may be created: what the contract's rules ask for, and what is unique."""
        message = self.resource.message(**fields)
        for reference in self.resource.references:
            if reference.collection != self.resource.collection:
                other = Kind(self._all[reference.collection], self._all)
                if not getattr(message, reference.field):
                    setattr(message, reference.field, (await other.new(served)).id)
        for name in {*self.unique_texts, *self.resource.searchable}:
            if not getattr(message, name):
                setattr(message, name, f"r-{new_key()}")
        for _ in range(MAX_REPAIRS):
            broken = violations(message)
            if not broken:
                return message
            for violation in broken:
                _repair(message, violation.field)
        raise AssertionError(f"no valid {self.name} could be made: {violations(message)}")

    @property
    def settable(self) -> set[str]:
        """Fields that a caller may set."""
        expanded = {reference.expand for reference in self.resource.references}
        fixed = {*OUTPUT_ONLY, *self.resource.output_only, *expanded}
        return set(self.resource.message.DESCRIPTOR.fields_by_name) - fixed

    @property
    def unique_texts(self) -> list[str]:
        return [
            unique.fields[0]
            for unique in self.resource.unique
            if not unique.where and self._is_text(unique.fields[0])
        ]

    @property
    def changeable(self) -> str:
        """A text that a change may change to any other."""
        taken = {*self.resource.immutable, *self.unique_texts}
        return next(
            field.name
            for field in self.resource.message.DESCRIPTOR.fields
            if field.name in self.settable - taken and self._is_text(field.name)
        )

    def _is_text(self, name: str) -> bool:
        field = self.resource.message.DESCRIPTOR.fields_by_name[name]
        is_string = field.cpp_type == FieldDescriptor.CPPTYPE_STRING and not field.is_repeated
        return is_string and not is_id(field, frozenset(self.resource.text_ids))

    def __repr__(self) -> str:
        return self.name


def kinds(resources: tuple[Resource, ...]) -> list[Kind]:
    """All resources and their histories."""
    histories = [one.history.resource() for one in resources if one.history is not None]
    known = {one.collection: one for one in (*resources, *histories)}
    return [Kind(one, known) for one in known.values()]


async def call(served: Served, method: MethodDescriptor, request: Message) -> Any:
    """The method's answer to this caller."""
    rpc = served.channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    return await rpc(request)


def scopes(method: MethodDescriptor) -> list[str]:
    return list(method.GetOptions().Extensions[access_pb2.access].scopes)


def repeated(answer: Message) -> str:
    return next(field.name for field in answer.DESCRIPTOR.fields if field.is_repeated)


def _methods(resource: Resource) -> Iterator[tuple[str, MethodDescriptor]]:
    message = resource.message.DESCRIPTOR
    for method in _all_methods():
        holds = [field.message_type for field in method.output_type.fields if field.is_repeated]
        for verb in ONE:
            if method.name == verb + message.name:
                yield verb, method
        for verb in ("List", "BatchDelete"):
            if method.name.startswith(verb) and message in holds:
                yield verb, method


def _all_methods() -> Iterator[MethodDescriptor]:
    for name, module in list(sys.modules.items()):
        if name.startswith("zaaz.") and name.endswith("_service_pb2"):
            for service in module.DESCRIPTOR.services_by_name.values():
                yield from service.methods


def _repair(message: Any, path: str) -> None:
    """Set the field at `path` to something that may pass."""
    *parents, name = [part.split("[")[0] for part in path.split(".")]
    for parent in parents:
        message = getattr(message, parent)
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.message_type is not None:
        getattr(message, name).SetInParent()
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        setattr(message, name, f"r-{new_key()}")
    else:
        setattr(message, name, 1)
