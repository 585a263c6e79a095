"""A declaration made ready to be worked with, and the collections and indexes it asks for."""

from collections.abc import Iterable
from typing import Any, Final

from server.mongo.schema import Collection, Index
from server.resources.codec import Codec
from server.resources.fields import fields_of
from server.resources.model import OUTPUT_ONLY, Collected, Document, Resource
from server.resources.queries import Order, parse_order

REQUESTS: Final = "resource_requests"
"""What a request_id was answered with; forgotten at expires_time."""

COLLECTIONS: Final = (
    Collection(REQUESTS, (Index((("expires_time", 1),), expire_after_seconds=0),)),
)
"""What the engine needs beside the resources' own."""

EITHER: Final[Any] = {"$in": [False, True]}
"""Of is_deleted: all rows, in a way that an index on it serves in the order of what follows."""


class Table:
    """A resource and what is worked out from its declaration once.

    `referrers`: (collection, field) of the rows that refer here. `expand`: references by the
    message field that they fill in. `collected`: stages that fill in what every read shows.
    """

    def __init__(self, resource: Resource, declared: Iterable[Resource]) -> None:
        message, text_ids = resource.message.DESCRIPTOR, resource.text_ids
        self.resource = resource
        self.name = resource.collection
        self.codec = Codec(resource.message, text_ids)
        self.filterable = fields_of(message, resource.filterable, text_ids)
        self.sortable = fields_of(message, resource.sortable, text_ids)
        self.order = order_of(resource)
        self.expand = {ref.expand: ref for ref in resource.references if ref.expand}
        self.collected = [_lookup(one) for one in resource.collected]
        filled_in = (*self.expand, *(one.field for one in resource.collected))
        self.output_only = frozenset((*OUTPUT_ONLY, *resource.output_only, *filled_in))
        references = [(other.collection, ref) for other in declared for ref in other.references]
        self.referrers = [
            (name, ref.field) for name, ref in references if ref.collection == self.name
        ]

    def searched(self, row: Document) -> Document:
        """The row with what a search looks through."""
        names = self.resource.searchable
        return {**row, "search_keys": [row.get(n, "").casefold() for n in names]} if names else row

    def version(self, row: Document) -> Document:
        """What the history keeps of the row."""
        history = self.resource.history
        names = history.message.DESCRIPTOR.fields_by_name if history is not None else ()
        left_out = self.resource.scheduled if row["is_deleted"] else ()
        return {name: row[name] for name in names if name in row and name not in left_out}


def order_of(resource: Resource) -> Order:
    """The order of a list whose caller asks for none."""
    names = [part.split()[0] for part in resource.order.split(",")]
    return parse_order(resource.order, fields_of(resource.message.DESCRIPTOR, names))


def collections(resource: Resource) -> tuple[Collection, ...]:
    """The resource's collection with every index that its declaration asks for, and its history's.

    Equality on a filterable field and the default order are one walk along one index.
    """
    first = order_of(resource).parts[0][0].key
    live = () if resource.read_only else ("is_deleted",)
    filtered = (*resource.filterable, *(reference.field for reference in resource.references))
    keys = [(*live, name, "_id") for name in (first, *resource.sortable)]
    keys += [(*live, name, first, "_id") for name in filtered if name != first]
    keys += [(*live, "search_keys", "_id")] if resource.searchable else []
    indexes = [Index(tuple((name, 1) for name in names)) for names in dict.fromkeys(keys)]
    for unique in resource.unique:
        partial = {"is_deleted": False, **unique.where}
        names = tuple((name, 1) for name in unique.fields)
        indexes.append(Index(names, unique=True, partial=partial))
    own = Collection(resource.collection, (*indexes, *resource.indexes))
    history = resource.history
    return (own,) if history is None else (own, *collections(history.resource()))


def _lookup(collected: Collected) -> Document:
    reference = collected.reference
    source = {"from": reference.collection, "localField": reference.field, "foreignField": "_id"}
    stages: list[Document] = [
        {"$match": {"is_deleted": False, **collected.where}},
        {"$lookup": {**source, "as": reference.expand}},
        {"$unwind": f"${reference.expand}"},
        {"$sort": {collected.order: 1, "_id": 1}},
    ]
    if collected.of_reference:
        stages.append({"$replaceRoot": {"newRoot": f"${reference.expand}"}})
    rows = {"from": collected.collection, "localField": "_id", "foreignField": collected.by}
    return {"$lookup": {**rows, "pipeline": stages, "as": collected.field}}
