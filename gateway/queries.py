"""Query strings: `a.b=1&ids=x&ids=y` into the fields of a request.

Names are the .proto's or lowerCamel. A field that is not repeated may stand
once; a field that the path or the body gives may not stand at all.
"""

from collections import Counter
from collections.abc import Collection
from typing import Final
from urllib.parse import parse_qsl

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gateway.fields import fields_by_json_name, put_text, refuse_second_of_oneof
from gateway.paths import decode_one
from gateway.refusals import field_invalid, malformed

MAX_QUERY_BYTES: Final = 16_384
MAX_PARAMETERS: Final = 1_000
MAX_NAME_CHARACTERS: Final = 200
MAX_VALUES: Final = 100
"""Of one repeated field."""
MAX_FIELD_DEPTH: Final = 8
"""`a.b.c` has three."""


class Query:
    """What a query may say about one type of request."""

    def __init__(self, request: Descriptor, taken: Collection[str]) -> None:
        """`taken`: the paths of fields that come from elsewhere."""
        self._request = request
        self._taken = frozenset(taken)

    def apply(self, message: Message, raw: bytes) -> None:
        """Puts the query `raw` into `message`; a Refusal that names the first wrong parameter."""
        seen: Counter[str] = Counter()
        for name, text in _pairs(raw):
            fields = self._resolve(name)
            path = ".".join(field.name for field in fields)
            if path in seen and not fields[-1].is_repeated:
                raise field_invalid(path, "stands twice in the query")
            seen[path] += 1
            if seen[path] > MAX_VALUES:
                text = f"stands more than {MAX_VALUES} times in the query: send a body instead"
                raise field_invalid(path, text)
            _put(message, fields, path, text)

    def _resolve(self, name: str) -> list[FieldDescriptor]:
        if len(name) > MAX_NAME_CHARACTERS or name.count(".") >= MAX_FIELD_DEPTH:
            raise field_invalid(name[:MAX_NAME_CHARACTERS], "is no parameter of this method")
        found: list[FieldDescriptor] = []
        message: Descriptor | None = self._request
        for part in name.split("."):
            field = fields_by_json_name(message).get(part) if message is not None else None
            if field is None or self._is_taken([*found, field]):
                raise field_invalid(name, "is no parameter of this method")
            found.append(field)
            # Below a list nothing can be named.
            message = None if field.is_repeated else field.message_type
        return found

    def _is_taken(self, fields: list[FieldDescriptor]) -> bool:
        return ".".join(field.name for field in fields) in self._taken


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    if not raw:
        return []
    if len(raw) > MAX_QUERY_BYTES:
        raise malformed(f"the query has more than {MAX_QUERY_BYTES} bytes")
    try:
        text = raw.decode("ascii")
        if "%" in text:
            decode_one(text)
        return parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError:
        limit = f"at most {MAX_PARAMETERS} of name=value"
        raise malformed(f"the query is not made of parameters, {limit}") from None


def _put(message: Message, fields: list[FieldDescriptor], path: str, text: str) -> None:
    *parents, field = fields
    for parent in parents:
        refuse_second_of_oneof(message, parent, path)
        message = getattr(message, parent.name)
        message.SetInParent()
    put_text(message, field, path, text)
