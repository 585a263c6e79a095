"""One operation of the document for each route."""

import re
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, MethodDescriptor
from zaaz.common.v1 import access_pb2

from gateway import preconditions
from gateway.openapi.comments import Comments
from gateway.openapi.examples import Examples
from gateway.openapi.parameters import WHOLE, Parameters
from gateway.openapi.paths import Paths, path_fields
from gateway.openapi.rules import Json
from gateway.openapi.schemas import Schemas, component_name
from gateway.openapi.shared import header, refusals
from gateway.routes import Route
from gateway.streaming import is_download, is_upload

EVENT_STREAM: Final = "text/event-stream"
JSON: Final = "application/json"
RAW: Final[Json] = {"*/*": {"schema": {}}}
"""Bytes of any type."""
HTTP_BODY: Final = "google.api.HttpBody"
REQUEST_ID: Final = "request_id"

_SAFE: Final = frozenset({"GET", "HEAD"})
_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Operations:
    """Makes operations, and with them the schemas that they refer to."""

    def __init__(self, schemas: Schemas, comments: Comments, paths: Paths) -> None:
        self._schemas = schemas
        self._comments = comments
        self._parameters = Parameters(schemas, comments, paths)
        self._examples = Examples(comments)

    def of(self, route: Route, operation_id: str) -> Json:
        """The operation of `route`."""
        method = route.method
        made: Json = {
            "operationId": operation_id,
            "tags": [tag_of(method)],
            "summary": _summary(method),
            "description": self._description(method),
            "parameters": [*self._parameters.of(route), *map(header, _headers(route))],
        }
        body = self._body(route, operation_id)
        if body is not None:
            made["requestBody"] = body
        made["responses"] = {"200": self._success(route)} | refusals(_refused_with(route))
        rule = method.GetOptions().Extensions[access_pb2.access]
        made["security"] = [] if rule.public else _credentials(route)
        made["x-required-scopes"] = list(rule.scopes)
        made["x-reasons"] = self._comments.reasons(method.full_name)
        made["x-grpc-method"] = f"/{method.containing_service.full_name}/{method.name}"
        return made

    def _description(self, method: MethodDescriptor) -> str:
        """The comment, who may call, and what is refused why."""
        parts = [self._comments.of(method.full_name) or _summary(method) + "."]
        scopes = method.GetOptions().Extensions[access_pb2.access].scopes
        if scopes:
            parts.append("Takes one of the scopes " + ", ".join(f"`{each}`" for each in scopes))
        reasons = self._comments.reasons(method.full_name)
        if reasons:
            lines = (f"- `{each}`: {self._comments.of_reason(each)}" for each in reasons)
            parts.append("Refused with, beside the reasons of any call:\n" + "\n".join(lines))
        return "\n\n".join(parts)

    def _body(self, route: Route, operation_id: str) -> Json | None:
        if not route.body:
            return None
        if is_upload(route):
            return {"required": True, "content": RAW}
        message = _body_message(route)
        if message is None:
            field = route.method.input_type.fields_by_name[route.body]
            return {
                "required": True,
                "content": {JSON: {"schema": self._schemas.field(field, is_sent=True)}},
            }
        if message.full_name == HTTP_BODY:
            return {"required": True, "content": RAW}
        return self._object_body(route, message, operation_id)

    def _object_body(self, route: Route, message: Descriptor, operation_id: str) -> Json:
        prefix = "" if route.body == WHOLE else route.body + "."
        bound = [path for path in path_fields(route) if path.startswith(prefix)]
        elsewhere = {path.removeprefix(prefix) for path in bound}
        package = component_name(route.method.input_type.full_name).rpartition(".")[0]
        name = f"{package}.{operation_id.partition('_')[2]}Body"
        is_patch = route.verb == "PATCH"
        schema = self._schemas.body(name, message, elsewhere, is_patch=is_patch)
        if route.body == WHOLE:
            _free(self._schemas.components[name], REQUEST_ID)
        content: Json = {"schema": schema}
        make = self._examples.patch if is_patch else self._examples.message
        example = make(message, elsewhere)
        if example:
            content["example"] = example
        is_needed = "required" in self._schemas.components[name]
        return {"required": is_needed, "content": {JSON: content}}

    def _success(self, route: Route) -> Json:
        made: Json = {"description": "Done.", "headers": _answer_headers(route)}
        output = route.method.output_type
        if is_download(route):
            return made | {"content": RAW}
        if route.method.server_streaming:
            return made | {"content": _stream(self._schemas, output)}
        if route.response_body:
            field = output.fields_by_name[route.response_body]
            if field.message_type is None or field.message_type.full_name != HTTP_BODY:
                return made | {"content": {JSON: {"schema": self._schemas.field(field)}}}
            output = field.message_type
        if output.full_name == HTTP_BODY:
            return made | {"content": RAW}
        return made | {"content": {JSON: {"schema": self._schemas.message(output)}}}


def tag_of(method: MethodDescriptor) -> str:
    """The name under which the methods of a service stand together."""
    return str(method.containing_service.name).removesuffix("Service")


def _summary(method: MethodDescriptor) -> str:
    """`GetCreditsUsage` as "Get credits usage"."""
    return _WORD.sub(" ", method.name).capitalize()


def _body_message(route: Route) -> Descriptor | None:
    if route.body == WHOLE:
        return route.method.input_type
    field = route.method.input_type.fields_by_name[route.body]
    return None if field.is_repeated else field.message_type


def _free(schema: Json, field: str) -> None:
    """No longer requires `field`."""
    required = [name for name in schema.pop("required", ()) if name != field]
    if required:
        schema["required"] = required


def _credentials(route: Route) -> list[Json]:
    """A key; or, of events, a ticket."""
    either: list[Json] = [{"bearer": []}]
    return [*either, {"ticket": []}] if _is_events(route) else either


def _is_events(route: Route) -> bool:
    return route.method.server_streaming and not is_download(route)


def _headers(route: Route) -> list[str]:
    names = []
    request = route.method.input_type
    if route.verb not in _SAFE and REQUEST_ID in request.fields_by_name:
        names.append("Idempotency-Key")
    if route.verb not in _SAFE and _guards_by_etag(route):
        names.append("If-Match")
    if _has_entity_tag(route):
        names.append("If-None-Match")
    if _is_events(route):
        return [*names, "Last-Event-ID"]
    return [*names, "X-Request-Timeout"]


def _guards_by_etag(route: Route) -> bool:
    request = route.method.input_type
    if preconditions.has_etag(request):
        return True
    field = request.fields_by_name.get(route.body)
    return field is not None and preconditions.has_etag(field.message_type)


def _has_entity_tag(route: Route) -> bool:
    if route.verb not in _SAFE or route.method.server_streaming:
        return False
    return preconditions.etag_of(route.method.output_type) is not None


def _answer_headers(route: Route) -> Json:
    names = ["X-Request-Id", "RateLimit", "RateLimit-Policy"]
    names += ["ETag"] if preconditions.etag_of(route.method.output_type) else []
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _refused_with(route: Route) -> list[int]:
    statuses = [400, 429, 500, 503, 504]
    if not route.method.GetOptions().Extensions[access_pb2.access].public:
        statuses += [401, 403]
    if _has_entity_tag(route):
        statuses.append(304)
    if path_fields(route):
        statuses.append(404)
    if route.verb not in _SAFE:
        statuses.append(409)
        statuses += [412] if _guards_by_etag(route) else []
        statuses += [413, 415] if route.body else []
    return sorted(statuses)


def _stream(schemas: Schemas, output: Descriptor) -> dict[str, Any]:
    """An event's data is one message; OpenAPI 3.1 has no word for that."""
    schema = {"type": "string", "contentMediaType": JSON}
    return {EVENT_STREAM: {"schema": schema, "x-event-data": schemas.message(output)}}
