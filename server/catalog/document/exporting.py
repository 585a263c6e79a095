"""The catalog as a document that makes it again."""

from collections.abc import Iterable
from typing import Any, Final

from zaaz.catalog.v1.catalog_document_pb2 import CatalogDocument

from server.catalog.document.existing import Existing
from server.catalog.document.kinds import (
    LISTS,
    MAX_ROWS,
    PACKAGE,
    PACKAGE_LISTS,
    PLAN,
    Kind,
    linked,
)
from server.kernel.errors import DomainError, Reason, field_invalid
from server.resources.model import Document

MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024 - 64 * 1024
"""What a client takes in one message, and sends in one."""


def export(existing: Existing) -> CatalogDocument:
    """All rows in an order of their own: by sequence where they have one, then by name.

    FIELD_INVALID or MESSAGE_TOO_LARGE when no document can hold them.
    """
    if sum(map(len, existing.live.values())) > MAX_ROWS:
        raise field_invalid("document", f"there are more than {MAX_ROWS:,} rows in all")
    document = CatalogDocument()
    own = {kind.collection: _by_package(kind, existing) for kind, _ in PACKAGE_LISTS}
    for kind, field in LISTS:
        for name, row in _sorted(existing.live[kind.collection].items()):
            item = getattr(document, field).add()
            _fill(item, kind, row, existing)
            for inner, inner_field in PACKAGE_LISTS if kind is PACKAGE else ():
                for inner_row in own[inner.collection].get(name, ()):
                    _fill(getattr(item, inner_field).add(), inner, inner_row, existing)
    if document.ByteSize() > MAX_DOCUMENT_BYTES:
        limit = MAX_DOCUMENT_BYTES >> 20
        text = f"the catalog takes more than {limit} MiB, the most that one message holds"
        raise DomainError(Reason.MESSAGE_TOO_LARGE, text, {"max_bytes": MAX_DOCUMENT_BYTES})
    return document


def _by_package(kind: Kind, existing: Existing) -> dict[str, list[Document]]:
    """The packages' own rows, in order; prices in the order of their plans."""
    plans = existing.live[PLAN.collection].items()
    place = {row["_id"]: i for i, (_, row) in enumerate(_sorted(plans))}
    rows = [row for _, row in _sorted(existing.live[kind.collection].items())]
    by_package: dict[str, list[Document]] = {}
    for row in sorted(rows, key=lambda one: place.get(one.get("plan_id"), 0)):
        by_package.setdefault(existing.names[row["package_id"]], []).append(row)
    return by_package


def _sorted(rows: Iterable[tuple[str, Document]]) -> list[tuple[str, Document]]:
    return sorted(rows, key=lambda one: (one[1].get("sequence", 0), one[0]))


def _fill(item: Any, kind: Kind, row: Document, existing: Existing) -> None:
    getattr(item, kind.field).CopyFrom(kind.said(kind.codec.decode(row)))
    for link in kind.links:
        names = linked(row, link, existing.names)
        if link.many:
            getattr(item, link.name).extend(sorted(names))
        elif names and link.field != "package_id":
            setattr(item, link.name, names[0])
