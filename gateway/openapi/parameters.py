"""What stands in the path, the query and the head of a request."""

from collections.abc import Collection, Iterator
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.openapi.comments import Comments
from gateway.openapi.known import TEXT, query_scalar
from gateway.openapi.paths import Paths, path_fields
from gateway.openapi.rules import Json, constraints, rules_of
from gateway.openapi.schemas import Schemas, must_be_set, narrowed
from gateway.routes import Route
from gateway.values import WRAPPERS

WHOLE: Final = "*"
MAX_DEPTH: Final = 4
"""Fields of fields of fields are named in a query no deeper than so."""

OBJECT_ID: Final = "ObjectId as 24 hex digits"
"""How the comment of an id begins that has no rule, since a new row comes without one."""
ID_PATTERN: Final = "^[0-9a-f]{24}$"

_OPTIONAL_IN_REST: Final = frozenset({"request_id"})
"""What the gateway fills in where it is left out."""


class Parameters:
    """Makes the parameters of a route."""

    def __init__(self, schemas: Schemas, comments: Comments, paths: Paths) -> None:
        self._paths = paths
        self._schemas = schemas
        self._comments = comments

    def of(self, route: Route) -> list[Json]:
        """Those of the path, then those of the query."""
        request = route.method.input_type
        made = [self._in_path(request, *each) for each in self._paths.variables(route)]
        if route.body != WHOLE:
            taken = {*path_fields(route), route.body}
            made += self._in_query(request, "", taken)
        return made

    def _in_path(self, request: Descriptor, path: str, name: str) -> Json:
        field = _field_at(request, path)
        schema = self._text(field)
        if _is_string(field) and "pattern" not in schema:
            is_id = self._comments.of(field.full_name).startswith(OBJECT_ID)
            schema |= {"pattern": ID_PATTERN} if is_id else {"minLength": 1}
        return self._told(field, {"name": name, "in": "path", "required": True, "schema": schema})

    def _in_query(
        self, message: Descriptor, prefix: str, taken: Collection[str], depth: int = 1
    ) -> Iterator[Json]:
        for field in message.fields:
            path = prefix + field.name
            if path in taken:
                continue
            if _fits_query(field):
                yield self._query_parameter(field, path, is_top=not prefix)
            elif (inner := _message_of(field)) is not None and depth < MAX_DEPTH:
                yield from self._in_query(inner, path + ".", taken, depth + 1)

    def _query_parameter(self, field: FieldDescriptor, path: str, *, is_top: bool) -> Json:
        rules = rules_of(field)
        if field.is_repeated:
            items = self._text(field) | constraints(rules.repeated.items)
            schema: Json = {"type": "array", "items": items} | constraints(rules)
        else:
            schema = self._text(field)
        made: Json = {"name": path, "in": "query", "schema": schema}
        if is_top and field.name not in _OPTIONAL_IN_REST and must_be_set(field):
            made["required"] = True
        return self._told(field, made)

    def _text(self, field: FieldDescriptor) -> Json:
        """The schema of one value as text."""
        rules = rules_of(field)
        if field.enum_type is not None and not field.is_repeated:
            return narrowed(self._schemas.one(field), field.enum_type, rules)
        if field.message_type is not None or field.enum_type is not None:
            return self._schemas.one(field)
        schema = query_scalar(field.type)
        return schema if field.is_repeated else schema | _numeric(constraints(rules))

    def _told(self, field: FieldDescriptor, parameter: Json) -> Json:
        comment = self._comments.of(field.full_name)
        return parameter | ({"description": comment} if comment else {})


def _field_at(message: Descriptor, path: str) -> FieldDescriptor:
    *parents, name = path.split(".")
    for parent in parents:
        inner = message.fields_by_name[parent].message_type
        assert inner is not None
        message = inner
    return message.fields_by_name[name]


def _is_string(field: FieldDescriptor) -> bool:
    return field.type == FieldDescriptor.TYPE_STRING


def _fits_query(field: FieldDescriptor) -> bool:
    if field.message_type is None:
        return True
    name = field.message_type.full_name
    return (name in TEXT or name in WRAPPERS) and not field.message_type.GetOptions().map_entry


def _message_of(field: FieldDescriptor) -> Descriptor | None:
    """The message whose fields a query names one by one."""
    message = field.message_type
    if message is None or field.is_repeated or message.full_name.startswith("google.protobuf."):
        return None
    return message


def _numeric(rules: Json) -> Json:
    """Bounds of an int64 as numbers again."""
    made = {key: value for key, value in rules.items() if not key.startswith("x-")}
    bounds = {key[2:]: int(value) for key, value in rules.items() if key in _TEXT_BOUNDS}
    if bounds:
        made.pop("pattern", None)
    return made | bounds


_TEXT_BOUNDS: Final = frozenset(
    {"x-minimum", "x-maximum", "x-exclusiveMinimum", "x-exclusiveMaximum"}
)
