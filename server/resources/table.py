"""A declaration made ready to be worked with, and the collections and indexes it asks for."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from server.mongo.schema import Collection, Index
from server.resources.codec import Codec
from server.resources.fields import fields_of
from server.resources.listing import Order, parse_order
from server.resources.model import OUTPUT_ONLY, Document, Resource

REQUESTS: Final = "resource_requests"
"""What a request_id was answered with; forgotten after 30 days (expires_time)."""

COLLECTIONS: Final = (
    Collection(REQUESTS, (Index((("expires_time", 1),), expire_after_seconds=0),)),
)
"""What the engine needs beside the resources' own."""

EITHER: Final[Any] = {"$in": [False, True]}
"""Of is_deleted: all rows, in a way that an index on it serves in the order of what follows."""

_DELETED = (("is_deleted", 1),)
_ID = (("_id", 1),)


class Referrer(NamedTuple):
    """`field` of the rows of `collection` refers here."""

    collection: str
    field: str


class Table:
    """A resource and what is worked out from its declaration once."""

    def __init__(self, resource: Resource, declared: Iterable[Resource]) -> None:
        descriptor, text_ids = resource.message.DESCRIPTOR, resource.text_ids
        self.resource = resource
        self.name = resource.collection
        self.codec = Codec(resource.message, text_ids)
        self.filterable = fields_of(descriptor, resource.filterable, text_ids)
        self.sortable = fields_of(descriptor, resource.sortable, text_ids)
        self.order = order_of(resource)
        self.expand = {ref.expand: ref for ref in resource.references if ref.expand}
        self.output_only = frozenset((*OUTPUT_ONLY, *resource.output_only, *self.expand))
        self.referrers = [
            Referrer(other.collection, ref.field)
            for other in declared
            for ref in other.references
            if ref.collection == resource.collection
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
    fields = fields_of(resource.message.DESCRIPTOR, names, resource.text_ids)
    return parse_order(resource.order, fields)


def collections(resource: Resource) -> tuple[Collection, ...]:
    """The resource's collection with every index that its declaration asks for, and its history's.

    Equality on a filterable field and the default order need one walk along one index.
    """
    first = order_of(resource).parts[0][0].key
    alive = () if resource.read_only else _DELETED
    filtered = (*resource.filterable, *(reference.field for reference in resource.references))
    indexes = [Index((*alive, (name, 1), *_ID)) for name in (first, *resource.sortable)]
    indexes += [
        Index((*alive, (name, 1), (first, 1), *_ID)) for name in filtered if name not in (first,)
    ]
    if resource.searchable:
        indexes.append(Index((*alive, ("search_keys", 1), *_ID)))
    for unique in resource.unique:
        keys = tuple((name, 1) for name in unique.fields)
        partial = {"is_deleted": False, **unique.where}
        indexes.append(Index(keys, unique=True, partial=partial))
    by_name = {index.name: index for index in (*indexes, *resource.indexes)}
    own = Collection(resource.collection, tuple(by_name.values()))
    history = resource.history
    return (own,) if history is None else (own, *collections(history.resource()))
