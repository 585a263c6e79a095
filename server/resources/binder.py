"""The verbs of a resource as RPCs, by the service's descriptor.

`CreateFeature` is Create of the resource whose message is Feature; a List or a BatchDelete is known
by what its answer repeats. Requests of all resources name their fields alike. A method that is
written in the servicer wins.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from server.kernel.errors import DomainError, Reason, refused
from server.kernel.ids import parse_id
from server.kernel.timestamps import storable_time
from server.resources.changes import Changes, not_found
from server.resources.engine import Resources
from server.resources.fields import date
from server.resources.model import Document, Resource
from server.resources.schedule import fold
from server.rpc.kinds import is_written
from server.rpc.validation import check

_OnRow = Callable[[Changes, Document], Awaitable[Any]]
_ONE_WORD = ("List", "Get", "Create", "Update", "Delete", "Restore", "Purge")
_VERBS = {"BatchDelete": "batch_delete"} | {verb: verb.lower() for verb in _ONE_WORD}


def bind(
    servicer: object, service: ServiceDescriptor, resources: Resources, *declared: Resource
) -> None:
    """Give `servicer` the verbs of these resources and their histories that it does not have.

    What stays unbound, RpcServer.add(..., complete=True) refuses.
    """
    histories = [one.history.resource() for one in declared if one.history is not None]
    for resource in (*declared, *histories):
        for method in service.methods:
            verb = _VERBS.get(method.name.removesuffix(_subject(method, resource)), "")
            is_open = verb in ("list", "get") or (verb and not resource.read_only)
            if is_open and not is_written(getattr(servicer, method.name, None)):
                rpc = getattr(_Rpc(method, resources, resource), verb)
                setattr(servicer, method.name, rpc)


def _subject(method: MethodDescriptor, resource: Resource) -> str:
    """What follows the verb in the method's name, if the method is of the resource."""
    message = resource.message.DESCRIPTOR
    repeated = [field.message_type for field in method.output_type.fields if field.is_repeated]
    plural = method.name.removeprefix("BatchDelete").removeprefix("List")
    return plural if message in repeated else message.name


class _Rpc:
    """A verb of a resource: takes the RPC's request and makes its answer."""

    def __init__(self, method: MethodDescriptor, resources: Resources, resource: Resource) -> None:
        self._resources = resources
        self._resource = resource
        self._table = resources.table(resource)
        self._answer: Any = message_factory.GetMessageClass(method.output_type)
        message, fields = resource.message.DESCRIPTOR, method.output_type.fields
        # None where the answer says nothing: Purge.
        self._field = next((one.name for one in fields if one.message_type is message), "")

    async def list(self, request: Any, _context: Any) -> Any:
        """A page of rows."""
        rows, token, total = await self._resources.page(self._resource, request)
        return self._answer(**{self._field: rows}, next_page_token=token, total_size=total)

    async def get(self, request: Any, _context: Any) -> Any:
        """One row, deleted or not."""
        row_id, expand = parse_id("id", request.id), getattr(request, "expand", ())
        return self._one(await self._resources.get(self._resource, row_id, expand))

    async def create(self, request: Any, _context: Any) -> Any:
        """A new row."""
        given = self._resource.message()
        given.CopyFrom(getattr(request, self._field))
        for name in self._table.output_only:
            given.ClearField(name)
        check(given, f"{self._field}.")
        fields, effective = self._table.codec.encode(given), _effective(request)

        async def work(changes: Changes) -> Any:
            return self._one(await changes.create(self._resource, fields, effective))

        return await self._resources.run(request, self._answer, work)

    async def update(self, request: Any, _context: Any) -> Any:
        """The fields of the mask changed; the row as it is then is what has to be valid."""
        given, effective = getattr(request, self._field), _effective(request)
        row_id = parse_id(f"{self._field}.id", given.id)
        paths = self._paths(request.update_mask.paths, given)

        async def work(changes: Changes) -> Any:
            (old,) = await changes.get(self._resource, [row_id])
            if old["is_deleted"]:
                raise not_found(self._resource, row_id)
            _match(old, given.etag)
            new = self._merged(fold(old, effective or changes.now), given, paths)
            return self._one(await changes.update(self._resource, old, new, effective))

        return await self._resources.run(request, self._answer, work)

    async def delete(self, request: Any, _context: Any) -> Any:
        """The row put away; again, it stays so."""

        async def work(changes: Changes, old: Document) -> Any:
            if not old["is_deleted"]:
                _match(old, request.etag)
            return self._one((await changes.delete(self._resource, [old]))[0])

        return await self._of_one(request, work)

    async def restore(self, request: Any, _context: Any) -> Any:
        """A deleted row brought back; one that is live stays so."""

        async def work(changes: Changes, old: Document) -> Any:
            new = {**old, "is_deleted": False, "deleted_time": None}
            return self._one(await changes.update(self._resource, old, new))

        return await self._of_one(request, work)

    async def purge(self, request: Any, _context: Any) -> Any:
        """The row removed for good."""

        async def work(changes: Changes, old: Document) -> Any:
            await changes.purge(self._resource, old)
            return self._answer()

        return await self._of_one(request, work)

    async def batch_delete(self, request: Any, _context: Any) -> Any:
        """All of these rows put away, or none."""
        ids = [parse_id("ids", text) for text in request.ids]

        async def work(changes: Changes) -> Any:
            rows = await changes.delete(self._resource, await changes.get(self._resource, ids))
            return self._answer(**{self._field: map(self._table.codec.decode, rows)})

        return await self._resources.run(request, self._answer, work)

    async def _of_one(self, request: Any, work: _OnRow) -> Any:
        row_id = parse_id("id", request.id)

        async def with_row(changes: Changes) -> Any:
            return await work(changes, (await changes.get(self._resource, [row_id]))[0])

        return await self._resources.run(request, self._answer, with_row)

    def _one(self, row: Any) -> Any:
        message = self._table.codec.decode(row) if isinstance(row, dict) else row
        return self._answer(**{self._field: message})

    def _paths(self, asked: Sequence[str], given: Any) -> Sequence[str]:
        """The paths to change: those asked for, or the fields that are set."""
        output_only = self._table.output_only
        for path in asked:
            known = FieldMask(paths=[path]).IsValidForDescriptor(given.DESCRIPTOR)
            if not known or path.split(".")[0] in output_only:
                text = f"{path} cannot be updated"
                raise refused(Reason.UPDATE_MASK_INVALID, "update_mask", text, {"path": path})
        return asked or [f.name for f, _ in given.ListFields() if f.name not in output_only]

    def _merged(self, base: Document, given: Message, paths: Sequence[str]) -> Document:
        """`base` with the fields at `paths` as they are in `given`, valid."""
        message = self._table.codec.decode(base)
        for path in paths:
            _copy(message, given, path.split("."))
        check(message, f"{self._field}.")
        new = self._table.codec.replaced(base, message)
        for name in self._resource.immutable:
            if new.get(name) != base.get(name):
                field = f"{self._field}.{name}"
                raise refused(Reason.FIELD_IMMUTABLE, field, "cannot be changed", {"field": name})
        return new


def _copy(target: Any, given: Any, path: Sequence[str]) -> None:
    """Make `target` like `given` at the path; what `given` has not set is unset."""
    *parents, name = path
    for parent in parents:
        target, given = getattr(target, parent), getattr(given, parent)
    target.ClearField(name)
    if any(field.name == name for field, _ in given.ListFields()):
        target.MergeFrom(type(given)(**{name: getattr(given, name)}))


def _effective(request: Any) -> datetime | None:
    moment = getattr(request, "effective_time", None)
    if moment is None or not request.HasField("effective_time"):
        return None
    return date(storable_time("effective_time", moment))


def _match(row: Document, etag: str) -> None:
    if etag and etag != str(row["version"]):
        message, metadata = "the row has changed since its etag was read", {"etag": row["version"]}
        raise DomainError(Reason.ETAG_MISMATCH, message, metadata)
