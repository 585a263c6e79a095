"""The eight verbs of a resource, between the contract's messages and the engine.

Requests of all resources name their fields alike; the row stands in the field that is called as
the message is: `AiModel` in `ai_model`.
"""

import re
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from server.kernel.errors import DomainError, FieldViolation, Reason
from server.kernel.ids import parse_id
from server.kernel.timestamps import storable_time
from server.resources.changes import Changes, not_found
from server.resources.engine import Resources
from server.resources.fields import date
from server.resources.mask import merge, paths_of
from server.resources.model import ENGINE_FIELDS, Document, Resource
from server.resources.schedule import fold
from server.rpc.validation import check


class Verbs:
    """Each takes a request and the type of its answer."""

    def __init__(self, resources: Resources, resource: Resource) -> None:
        self._resources = resources
        self._resource = resource
        self._table = resources.table(resource)
        name = resource.message.DESCRIPTOR.name
        self._field = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()

    async def list(self, request: Any, answer: Any) -> Any:
        """A page of rows."""
        page = await self._resources.page(self._resource, request)
        return answer(
            **{_repeated(answer): page.messages},
            next_page_token=page.next_page_token,
            total_size=page.total_size,
        )

    async def get(self, request: Any, answer: Any) -> Any:
        """One row, deleted or not."""
        expand = getattr(request, "expand", ())
        row_id = parse_id("id", request.id)
        return answer(**{self._field: await self._resources.get(self._resource, row_id, expand)})

    async def create(self, request: Any, answer: Any) -> Any:
        """A new row."""
        given = type(getattr(request, self._field))()
        given.CopyFrom(getattr(request, self._field))
        for name in self._table.output_only:
            given.ClearField(name)
        self._validate(given)
        fields, effective = self._table.codec.encode(given), _effective(request)

        async def work(changes: Changes) -> Any:
            return self._one(answer, await changes.create(self._resource, fields, effective))

        return await self._resources.run(request, answer, work)

    async def update(self, request: Any, answer: Any) -> Any:
        """The fields of the mask changed; the row as it is then is what has to be valid."""
        given, effective = getattr(request, self._field), _effective(request)
        row_id = parse_id(f"{self._field}.id", given.id)
        paths = paths_of(request.update_mask.paths, given, self._table.output_only)

        async def work(changes: Changes) -> Any:
            (old,) = await changes.get(self._resource, [row_id])
            if old["is_deleted"]:
                raise not_found(self._resource, row_id)
            _match(old, given.etag)
            base = fold(old, effective or changes.now)
            new = self._merged(base, given, paths)
            return self._one(answer, await changes.update(self._resource, old, new, effective))

        return await self._resources.run(request, answer, work)

    async def delete(self, request: Any, answer: Any) -> Any:
        """The row put away; again, it stays so."""
        row_id = parse_id("id", request.id)

        async def work(changes: Changes) -> Any:
            rows = await changes.get(self._resource, [row_id])
            if not rows[0]["is_deleted"]:
                _match(rows[0], request.etag)
                rows = await changes.delete(self._resource, rows)
            return self._one(answer, rows[0])

        return await self._resources.run(request, answer, work)

    async def batch_delete(self, request: Any, answer: Any) -> Any:
        """All of these rows put away, or none."""
        ids = [parse_id("ids", text) for text in request.ids]

        async def work(changes: Changes) -> Any:
            rows = await changes.delete(self._resource, await changes.get(self._resource, ids))
            return answer(**{_repeated(answer): [self._table.codec.decode(row) for row in rows]})

        return await self._resources.run(request, answer, work)

    async def restore(self, request: Any, answer: Any) -> Any:
        """A deleted row brought back; one that is live stays so."""
        row_id = parse_id("id", request.id)

        async def work(changes: Changes) -> Any:
            (old,) = await changes.get(self._resource, [row_id])
            new = {**old, "is_deleted": False, "deleted_time": None}
            return self._one(answer, await changes.update(self._resource, old, new))

        return await self._resources.run(request, answer, work)

    async def purge(self, request: Any, answer: Any) -> Any:
        """The row removed for good."""
        row_id = parse_id("id", request.id)

        async def work(changes: Changes) -> Any:
            (row,) = await changes.get(self._resource, [row_id])
            await changes.purge(self._resource, row)
            return answer()

        return await self._resources.run(request, answer, work)

    def _one(self, answer: Any, row: Document) -> Any:
        return answer(**{self._field: self._table.codec.decode(row)})

    def _merged(self, base: Document, given: Message, paths: Any) -> Document:
        """`base` with the fields at `paths` as they are in `given`, valid."""
        message = self._table.codec.decode(base)
        merge(message, given, paths)
        self._validate(message)
        kept: Document = {name: base[name] for name in ENGINE_FIELDS if name in base}
        new = {**self._table.codec.encode(message), **kept}
        for name in self._resource.immutable:
            if new.get(name) != base.get(name):
                text = f"{self._field}.{name} cannot be changed"
                violation = FieldViolation(f"{self._field}.{name}", "cannot be changed")
                raise DomainError(
                    Reason.FIELD_IMMUTABLE, text, {"field": name}, violations=[violation]
                )
        return new

    def _validate(self, message: Message) -> None:
        """The contract's rules, with paths as they are in the request."""
        try:
            check(message)
        except DomainError as error:
            found = [
                FieldViolation(f"{self._field}.{one.field}", one.description)
                for one in error.violations
            ]
            field = found[0].field
            text = f"{field}: {found[0].description}"
            raise DomainError(error.reason, text, {"field": field}, violations=found) from None


def _effective(request: Any) -> datetime | None:
    known = request.DESCRIPTOR.fields_by_name
    if "effective_time" not in known or not request.HasField("effective_time"):
        return None
    return date(storable_time("effective_time", request.effective_time))


def _match(row: Document, etag: str) -> None:
    if etag and etag != str(row["version"]):
        message = "the row has changed since its etag was read"
        raise DomainError(Reason.ETAG_MISMATCH, message, {"etag": row["version"]})


def _repeated(answer: type[Message]) -> str:
    """The field of a page or a batch that holds its rows."""
    return next(field.name for field in answer.DESCRIPTOR.fields if field.is_repeated)
