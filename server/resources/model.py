"""What a domain declares of a resource. Pure values; a mistake in one is a ValueError at import.

A row's document has the message's own field names: `_id` for `id`, ObjectIds for `*_id`, dates for
timestamps, numbers for enums, sub-documents for messages and maps, JSON text for
google.protobuf.Value. What is not set (an optional, a message, an id) is absent. Beside them stand
the engine's own fields: `version`, an int, is the etag as text; `guard`, an int, counts those who
relied on the row; `scheduled` is [{effective_time, fields}], the soonest first; `search_keys` are
what a search looks through.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.message import Message

from server.mongo.schema import Index

Document = dict[str, Any]

OUTPUT_ONLY: Final = ("id", "is_deleted", "etag", "created_time", "updated_time", "deleted_time")
"""Output-only in every message that has them."""

MAX_SCHEDULED: Final = 16
"""So many changes may wait for their time on one row."""


def unchanged(document: Document) -> Document:
    """The same document: what `normalize` does unless a declaration says otherwise."""
    return document


def accept(_new: Document, _old: Document | None) -> None:
    """Refuse nothing: what `check` does unless a declaration says otherwise."""


@dataclass(frozen=True, slots=True)
class Unique:
    """No two live rows have the same `fields`; `where` leaves out rows that are not like it."""

    fields: tuple[str, ...]
    where: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reference:
    """`field` holds the id of a row of `collection`, or ids if it is repeated.

    `expand` is the message field that the row of one id fills in.
    """

    field: str
    collection: str
    expand: str = ""


@dataclass(frozen=True, slots=True)
class Collected:
    """`field` is filled in, by Get and List, with the live rows of `collection` that refer here.

    They do so by their field `by`, each has its `reference` filled in, and they come in the order
    of the field `order` of what is then there. `where` leaves out rows that are not like it.
    `of_reference`: `field` holds the rows that they refer to, instead of them.
    """

    field: str
    collection: str
    by: str
    reference: Reference
    order: str
    where: Mapping[str, Any]
    of_reference: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """An immutable row per change: all fields, whose row it is (`field`), effective_time, why.

    `scheduled` fields may be set ahead of time, and are unset in the history of a deletion, which
    ends what was to come. Only they are to be read by effective_time, in the order of writing.
    `filterable` is beside `field`, effective_time and created_time,
    `indexes` beside theirs.
    """

    message: type[Message]
    collection: str
    field: str
    scheduled: tuple[str, ...] = ()
    filterable: tuple[str, ...] = ()
    indexes: tuple[Index, ...] = ()

    def resource(self) -> "Resource":
        """The history as a resource of its own, which can be listed and read."""
        times = ("effective_time", "created_time")
        return Resource(
            self.message,
            self.collection,
            filterable=(self.field, *self.filterable, *times),
            sortable=times,
            indexes=self.indexes,
            read_only=True,
        )


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of row. `normalize` and `check(new, old)` are pure; `check` raises DomainError.

    `guard(changes, new, old)` may look into the database, within the change's own transaction, and
    has to `rely_on` what it read there. It may change `new`, and other rows. Both see every change:
    `old` is None for a new row, `new` has is_deleted when the row is put away. A purge goes to
    `guard` alone, with None for `new`.

    Every filterable, sortable, searchable, unique and reference field has its index; `indexes`
    are others beside them. `order` is the order of a list whose caller asks for none. `text_ids`
    are fields named `*_id` that are not ObjectIds. `read_only` rows are listed and read here, and
    written by whoever owns them; they have no deleted ones.
    """

    message: type[Message]
    collection: str
    unique: tuple[Unique, ...] = ()
    references: tuple[Reference, ...] = ()
    collected: tuple[Collected, ...] = ()
    filterable: tuple[str, ...] = ()
    sortable: tuple[str, ...] = ()
    searchable: tuple[str, ...] = ()
    output_only: tuple[str, ...] = ()
    immutable: tuple[str, ...] = ()
    text_ids: tuple[str, ...] = ()
    normalize: Callable[[Document], Document] = unchanged
    check: Callable[[Document, Document | None], None] = accept
    guard: Callable[[Any, Document | None, Document | None], Awaitable[None]] | None = None
    history: History | None = None
    order: str = "created_time desc"
    indexes: tuple[Index, ...] = ()
    read_only: bool = False

    def __post_init__(self) -> None:
        known = set(self.message.DESCRIPTOR.fields_by_name)
        fixed = {
            *self.filterable,
            *self.sortable,
            *self.searchable,
            *(name for unique in self.unique for name in unique.fields),
            *(reference.field for reference in self.references),
        }
        expanded = {reference.expand for reference in self.references} - {""}
        expanded |= {one.field for one in self.collected}
        named = fixed | expanded | {*self.output_only, *self.immutable, *self.scheduled}
        if unknown := named - known:
            raise ValueError(f"{self.collection}: no such fields: {sorted(unknown)}")
        if early := fixed & set(self.scheduled):
            # Queries see the row as it is stored, which may be older than what is in force.
            raise ValueError(f"{self.collection}: scheduled fields are not found: {sorted(early)}")

    @property
    def scheduled(self) -> tuple[str, ...]:
        """Fields that may be set ahead of time."""
        return self.history.scheduled if self.history is not None else ()
