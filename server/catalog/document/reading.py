"""A document's rows, valid each by itself; nothing here knows what is stored."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from google.protobuf.message import Message
from zaaz.catalog.v1.catalog_document_pb2 import CatalogDocument

from server.catalog.document.kinds import (
    LISTS,
    MAX_ROWS,
    PACKAGE,
    PACKAGE_LISTS,
    Kind,
    Link,
    set_links,
)
from server.kernel.errors import DomainError, FieldViolation, Reason, field_invalid, refused
from server.kernel.ids import derived_id, new_id
from server.resources.fields import date
from server.rpc.validation import MAX_VIOLATIONS, violations

Links = tuple[tuple[Link, tuple[tuple[str, str], ...]], ...]
"""The names that a row says, each with where in the request it stands, by link."""

_EPOCH: Final = date(0)


class Entry(NamedTuple):
    """A row of a document. `message` is as it would be stored, without what it links."""

    kind: Kind
    name: str
    path: str
    message: Any
    links: Links

    @property
    def linked(self) -> Mapping[str, list[str]]:
        """The names that each link says, by its name in the document."""
        return {link.name: [name for name, _ in said] for link, said in self.links}


class Reader:
    """Takes a document's rows one by one, so that others have their turn between them."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._named: set[tuple[str, str]] = set()
        self._broken: list[FieldViolation] = []

    def rows(self, document: CatalogDocument) -> Iterator[None]:
        """Reads a row with every step; `done` after the last.

        ALREADY_EXISTS for a name that comes twice, FIELD_INVALID for too many rows.
        """
        for number, (kind, item, path, package) in enumerate(_items(document), start=1):
            if number > MAX_ROWS:
                raise field_invalid("document", f"must have at most {MAX_ROWS:,} rows in all")
            self._add(kind, item, path, package)
            yield

    def done(self) -> list[Entry]:
        """All rows; FIELD_INVALID naming every field that breaks its rule."""
        if self._broken:
            first = self._broken[0]
            text, metadata = f"{first.field}: {first.description}", {"field": first.field}
            raise DomainError(Reason.FIELD_INVALID, text, metadata, violations=self._broken)
        return self.entries

    def _add(self, kind: Kind, item: Any, path: str, package: str) -> None:
        links = tuple((link, tuple(_said(item, link, path, package))) for link in kind.links)
        message, broken = _valid(kind, getattr(item, kind.field), links)
        room = MAX_VIOLATIONS - len(self._broken)
        self._broken += [
            FieldViolation(kind.path(path, one.field), one.description) for one in broken[:room]
        ]
        name = getattr(message, kind.named_by) if kind.named_by else _joined(links)
        if (kind.collection, name) in self._named:
            own, last = kind.named_by, kind.links[-1].name if kind.links else ""
            field = kind.path(path, own) if own else f"{path}.{last}"
            metadata = {"field": field, "name": name}
            raise refused(Reason.ALREADY_EXISTS, field, f"{name} comes twice", metadata)
        self._named.add((kind.collection, name))
        self.entries.append(Entry(kind, name, path, message, links))


def _items(document: CatalogDocument) -> Iterator[tuple[Kind, Any, str, str]]:
    """Each row with its path and, within one, the name of its package."""
    for kind, field in LISTS:
        for i, item in enumerate(getattr(document, field)):
            path = f"document.{field}[{i}]"
            yield kind, item, path, ""
            for inner, inner_field in PACKAGE_LISTS if kind is PACKAGE else ():
                for j, inner_item in enumerate(getattr(item, inner_field)):
                    yield inner, inner_item, f"{path}.{inner_field}[{j}]", item.package.value


def _said(item: Any, link: Link, path: str, package: str) -> Iterator[tuple[str, str]]:
    """The names that the row says, and where each stands."""
    if link.many:
        for i, name in enumerate(getattr(item, link.name)):
            yield name, f"{path}.{link.name}[{i}]"
    elif link.field == "package_id":
        yield package, path
    elif getattr(item, link.name) or link.required:
        yield getattr(item, link.name), f"{path}.{link.name}"


def _valid(kind: Kind, given: Message, links: Links) -> tuple[Any, list[FieldViolation]]:
    """The row as it would be stored, without what it links, and the rules that it breaks."""
    message = kind.said(given)
    linked = kind.said(given)
    for link, said in links:
        set_links(linked, link, [derived_id(name) for name, _ in said])
    broken = violations(linked)
    if broken:
        return message, broken
    row = {"_id": new_id(), "is_deleted": False, "created_time": _EPOCH, "updated_time": _EPOCH}
    try:
        row = kind.resource.normalize({**row, **kind.codec.encode(linked)})
    except DomainError as error:
        if not error.violations:
            raise
        return message, list(error.violations)
    return kind.said(kind.codec.decode(row)), []


def _joined(links: Links) -> str:
    return "/".join(name for _, said in links for name, _ in said)
