"""What a row says, field by field as JSON, and how two rows differ: without ids, so that it can be
told before there are any.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from bson import ObjectId
from google.protobuf.json_format import MessageToDict
from zaaz.catalog.v1.catalog_document_pb2 import FieldDifference

from server.catalog.document.kinds import Kind, linked
from server.catalog.document.reading import Entry
from server.resources.model import Document

MAX_SHOWN_CHARACTERS: Final = 500
"""A value that is longer is cut where it is told: whole ones would not fit an answer."""

View = dict[str, str]
"""Fields in the contract's order, then links, each as compact JSON. What is unset is left out."""


def view_of(entry: Entry) -> View:
    """What the document says of a row."""
    return _view(entry.kind, entry.message, entry.linked)


def view_of_row(kind: Kind, row: Document, names: Mapping[ObjectId, str]) -> View:
    """What a stored row says."""
    said = {link.name: linked(row, link, names) for link in kind.links}
    return _view(kind, kind.said(kind.codec.decode(row)), said)


def differences(before: View, after: View) -> list[FieldDifference]:
    """The fields that are not the same."""
    return [
        FieldDifference(
            field=name, before=_shown(before.get(name, "")), after=_shown(after.get(name, ""))
        )
        for name in {**after, **before}
        if before.get(name, "") != after.get(name, "")
    ]


def without_defaults(view: View) -> View:
    """What somebody has said: fields that are as they are in an empty row tell nothing."""
    return {name: text for name, text in view.items() if text not in _EMPTY}


_EMPTY: Final = ('""', "0", '"0"', "false", "[]", "{}")


def _view(kind: Kind, message: Any, names: Mapping[str, list[str]]) -> View:
    said = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    # What names a row cannot differ.
    told = (name for name in kind.settable if name in said and name != kind.named_by)
    view = {name: _json(said[name]) for name in told}
    for link in kind.links if kind.named_by else ():
        if names[link.name]:
            view[link.name] = _json(sorted(names[link.name]) if link.many else names[link.name][0])
    return view


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _shown(text: str) -> str:
    if len(text) <= MAX_SHOWN_CHARACTERS:
        return text
    return text[:MAX_SHOWN_CHARACTERS] + f"… {len(text) - MAX_SHOWN_CHARACTERS:,} more"
