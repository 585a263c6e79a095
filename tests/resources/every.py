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

from server.kernel.errors import DomainError
from server.resources.codec import Codec
from server.resources.fields import is_id
from server.resources.model import OUTPUT_ONLY, Reference, Resource
from server.rpc.validation import violations
from tests.serving import Served, new_key

MAX_REPAIRS = 20
ONE = ("Get", "Create", "Update", "Delete", "Restore", "Purge")
READS = ("Get", "List")
_INTEGERS = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
WRITES = ("Create", "Update", "Delete", "BatchDelete", "Restore", "Purge")


class Kind:
    """A resource with the methods that serve it, by verb."""

    def __init__(self, resource: Resource, all_resources: dict[str, Resource]) -> None:
        self.resource = resource
        self.name = resource.message.DESCRIPTOR.name
        self.field = re.sub(r"(?<!^)(?=[A-Z])", "_", self.name).lower()
        self.methods = dict(_methods(resource))
        self._all = all_resources
        self._codec = Codec(resource.message, resource.text_ids)

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
        """A message that may be created: what the rules ask for, and what is unique.

        As it will be kept: in capitals, say.
        """
        message = self.resource.message(**fields)
        for reference in self.resource.references:
            if reference.collection != self.resource.collection:
                other = Kind(self._all[reference.collection], self._all)
                if not getattr(message, reference.field):
                    row_id = (await other.new(served)).id
                    message.MergeFrom(self.referring(reference, row_id))
        for name in {*self.unique_texts, *self.resource.searchable}:
            if not getattr(message, name):
                setattr(message, name, f"r-{new_key()}")
        for _ in range(MAX_REPAIRS):
            broken = [one.field for one in violations(message)] or self._refused(message)
            if not broken:
                return self._kept(message)
            for field in broken:
                _repair(message, field)
        raise AssertionError(f"no valid {self.name} could be made: {broken}")

    def referring(self, reference: Reference, row_id: str) -> Any:
        """A message with this reference and nothing else."""
        is_repeated = self._field(reference.field).is_repeated
        return self.resource.message(**{reference.field: [row_id] if is_repeated else row_id})

    def _refused(self, message: Any) -> list[str]:
        """The field that the declaration's own rules refuse."""
        try:
            self.resource.check(self._codec.encode(message), None)
        except DomainError as error:
            return [error.metadata["field"].removeprefix(f"{self.field}.")]
        return []

    def _kept(self, message: Any) -> Any:
        return self._codec.decode(self.resource.normalize(self._codec.encode(message)))

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
        """A field that a change may set to `changed`: a text if there is any, or a number."""
        taken = {*self.resource.immutable, *self.unique_texts}
        names = [
            field.name
            for field in self.resource.message.DESCRIPTOR.fields
            if field.name in self.settable - taken and self._is_plain(field.name)
        ]
        return min(names, key=lambda name: not self._is_text(name))

    @property
    def changed(self) -> Any:
        return "changed" if self._is_text(self.changeable) else 77

    @property
    def broken(self) -> Any:
        """What `changeable` may not be: longer than any text, below every number; None: nothing."""
        value = "x" * 100_000 if self._is_text(self.changeable) else -1
        message = self.resource.message(**{self.changeable: value})
        fields = [one.field for one in violations(message)]
        return value if self.changeable in fields else None

    def _is_plain(self, name: str) -> bool:
        field = self._field(name)
        return not field.is_repeated and (self._is_text(name) or field.cpp_type in _INTEGERS)

    def _is_text(self, name: str) -> bool:
        field = self._field(name)
        is_string = field.cpp_type == FieldDescriptor.CPPTYPE_STRING and not field.is_repeated
        return is_string and not is_id(field, frozenset(self.resource.text_ids))

    def _field(self, name: str) -> Any:
        return self.resource.message.DESCRIPTOR.fields_by_name[name]

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
