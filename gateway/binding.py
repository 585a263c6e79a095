"""An HTTP request as the message that its method takes.

the body, the path's variables, the query -> fields
Idempotency-Key -> request_id             If-Match -> etag
a PATCH that names no update_mask changes what its body names
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple
from uuid import uuid4

from google.api import httpbody_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway import paths, preconditions
from gateway.decoding import Decoders, parse_json
from gateway.exchange import Exchange
from gateway.fields import fields_by_json_name, put_text
from gateway.queries import Query
from gateway.refusals import Refusal, field_invalid, malformed
from gateway.routes import Route
from gateway.templates import Template, Variable
from gateway.values import FIELD_MASK

HTTP_BODY: Final = httpbody_pb2.HttpBody.DESCRIPTOR.full_name
REQUEST_ID: Final = "request_id"
UPDATE_MASK: Final = "update_mask"
WHOLE: Final = "*"

_KEY: Final = re.compile(r"[!-~]{1,128}")
_JSON: Final = "application/json"
_OCTETS: Final = "application/octet-stream"
_SAFE: Final = frozenset({"GET", "HEAD"})
_Read = Callable[[Message, bytes, str], Any]
"""Puts a body of some content type into a request; the JSON document that it was, if any."""


class Bound(NamedTuple):
    """A request; and the key under which it may be sent again, "" where none applies."""

    request: Any
    idempotency_key: str


class Binding:
    """How requests of one route become messages. Made once."""

    def __init__(self, route: Route, template: Template, decoders: Decoders) -> None:
        """ValueError if the route names fields that its request does not have."""
        request = route.method.input_type
        self._new: Callable[[], Any] = GetMessageClass(request)
        self._variables = [_Place(request, each) for each in template.variables]
        self._query = None if route.body == WHOLE else _query(route, self._variables)
        self._body = route.body
        streamed = route.method.client_streaming
        self._read = None if streamed else _reader(request, route.body, decoders)
        self.takes_raw_body = not streamed and _is_raw(request, route.body)
        self._mutates = route.verb not in _SAFE
        self._has_request_id = self._mutates and _is_string(request, REQUEST_ID)
        self._etag_in = _etag_place(request, route.body)
        self._masks = route.verb == "PATCH" and _has_mask(request) and self._etag_in is not None

    async def bind(self, exchange: Exchange, segments: Sequence[str]) -> Bound:
        """The message; `segments` are the path's as they were sent. A Refusal if it is none."""
        request, document = self._new(), None
        if self._read is not None:
            content_type = exchange.head.get(b"content-type", "")
            document = self._read(request, await exchange.read_body(), content_type)
        elif self._mutates and exchange.has_body:
            await _refuse_body(exchange)
        self.bind_address(request, exchange, segments)
        if self._masks:
            self._fill_mask(request, document)
        self._apply_if_match(request, exchange)
        return Bound(request, self._apply_key(request, exchange))

    def bind_opening(self, exchange: Exchange, segments: Sequence[str]) -> Bound:
        """The message without the body, which then follows in pieces. A Refusal if it is none."""
        request = self._new()
        self.bind_address(request, exchange, segments)
        self._apply_if_match(request, exchange)
        return Bound(request, self._apply_key(request, exchange))

    def bind_address(self, request: Message, exchange: Exchange, segments: Sequence[str]) -> None:
        """The path's variables and the query into `request`."""
        for place in self._variables:
            place.put(request, segments)
        query: bytes = exchange.scope["query_string"]
        if not query:
            return
        if self._query is None:
            raise malformed("this method takes its fields in the body, not in a query")
        self._query.apply(request, query)

    def _apply_key(self, request: Any, exchange: Exchange) -> str:
        if not self._has_request_id:
            return ""
        given = exchange.head.get(b"idempotency-key")
        if given is not None and not _KEY.fullmatch(given):
            raise field_invalid("idempotency-key", "must be 1 to 128 visible ASCII characters")
        if given and request.request_id and given != request.request_id:
            raise field_invalid(REQUEST_ID, "differs from the Idempotency-Key header")
        if not request.request_id:
            request.request_id = given or str(uuid4())
        # One that the body gave may be anything, and must not get into a header so.
        return str(request.request_id) if _KEY.fullmatch(request.request_id) else ""

    def _apply_if_match(self, request: Any, exchange: Exchange) -> None:
        given = exchange.head.get(b"if-match")
        if given is None:
            return
        etag = preconditions.wanted(given)
        if not etag:
            return
        if self._etag_in is None:
            raise field_invalid("if-match", "this method goes by no entity tag")
        holder = getattr(request, self._etag_in) if self._etag_in else request
        if holder.etag and holder.etag != etag:
            raise field_invalid("etag", "differs from the If-Match header")
        holder.etag = etag

    def _fill_mask(self, request: Any, document: Any) -> None:
        """What the body names is to change: else nothing could be set to zero or emptied."""
        if request.HasField(UPDATE_MASK) or not isinstance(document, dict):
            return
        fields = fields_by_json_name(getattr(request, self._body).DESCRIPTOR)
        bound = {place.path for place in self._variables}
        for key in document:
            name = fields[key].name
            if f"{self._body}.{name}" not in bound and name != preconditions.FIELD:
                request.update_mask.paths.append(name)


class _Place:
    """The field that a variable of the path fills."""

    def __init__(self, request: Descriptor, variable: Variable) -> None:
        self._variable = variable
        self.path = variable.field_path
        *self._parents, name = variable.field_path.split(".")
        owner: Descriptor | None = request
        for parent in self._parents:
            owner = _field(owner, parent).message_type
        self._field = _field(owner, name)

    def put(self, request: Message, segments: Sequence[str]) -> None:
        """The value that stands in the path. A Refusal if the body has another."""
        owner = request
        for parent in self._parents:
            owner = getattr(owner, parent)
            owner.SetInParent()
        before = getattr(owner, self._field.name)
        put_text(owner, self._field, self.path, self._text(segments))
        if before and before != getattr(owner, self._field.name):
            raise field_invalid(self.path, "differs from the path")

    def _text(self, segments: Sequence[str]) -> str:
        start, stop = self._variable.start, self._variable.stop
        if self._variable.is_single:
            text = segments[start]
            return paths.decode_one(text) if "%" in text else text
        return paths.decode_many(segments[start:stop])


def _field(message: Descriptor | None, name: str) -> FieldDescriptor:
    field = message.fields_by_name.get(name) if message is not None else None
    if field is None:
        raise ValueError(f"{message and message.full_name} has no field {name}")
    return field


def _query(route: Route, variables: Sequence[_Place]) -> Query:
    taken = {place.path for place in variables}
    return Query(route.method.input_type, taken | ({route.body} if route.body else set()))


def _is_string(message: Descriptor, name: str) -> bool:
    field = message.fields_by_name.get(name)
    return field is not None and field.type == FieldDescriptor.TYPE_STRING


def _has_mask(message: Descriptor) -> bool:
    field = message.fields_by_name.get(UPDATE_MASK)
    return (
        field is not None
        and field.message_type is not None
        and field.message_type.full_name == FIELD_MASK
    )


def _etag_place(request: Descriptor, body: str) -> str | None:
    """The field whose etag an update is guarded by; "" for the request itself, None without."""
    if preconditions.has_etag(request):
        return ""
    field = request.fields_by_name.get(body)
    return body if field is not None and preconditions.has_etag(field.message_type) else None


def _reader(request: Descriptor, body: str, decoders: Decoders) -> _Read | None:
    if not body:
        return None
    if _is_raw(request, body):
        return _raw_reader(body)
    if body == WHOLE:
        return _json_reader(decoders.message(request).fill)
    put = decoders.field(_field(request, body))
    return _json_reader(lambda message, document: put(message, document, ""))


def _is_raw(request: Descriptor, body: str) -> bool:
    if not body:
        return False
    message = request if body == WHOLE else _field(request, body).message_type
    return message is not None and message.full_name == HTTP_BODY


def _json_reader(fill: Callable[[Any, Any], None]) -> _Read:
    def read(message: Message, data: bytes, content_type: str) -> Any:
        if not data:
            return None
        _require_json(content_type)
        document = parse_json(data)
        fill(message, document)
        return document

    return read


def _raw_reader(body: str) -> _Read:
    def read(message: Any, data: bytes, content_type: str) -> None:
        into = message if body == WHOLE else getattr(message, body)
        into.content_type, into.data = content_type or _OCTETS, data

    return read


def _require_json(content_type: str) -> None:
    kind, _, parameters = content_type.lower().partition(";")
    kind = kind.strip()
    name, _, charset = parameters.partition("=")
    utf8 = name.strip() != "charset" or charset.strip().strip('"') in {"utf-8", "utf8"}
    if not utf8 or not (
        kind == _JSON or (kind.startswith("application/") and kind[-5:] == "+json")
    ):
        raise Refusal(
            415,
            "MEDIA_TYPE_UNSUPPORTED",
            f"the body must be {_JSON} in UTF-8",
            headers=((b"accept", _JSON.encode()),),
        )


async def _refuse_body(exchange: Exchange) -> None:
    """Of a method without one. Announced and empty is none."""
    if await exchange.read_body():
        raise malformed("this method takes no body")
