"""Components that every operation refers to: refusals, headers, the caller's key."""

from http import HTTPStatus
from typing import Final

from gateway.openapi.comments import REASONS
from gateway.openapi.rules import Json

PROBLEM: Final = "application/problem+json"
PROBLEM_SCHEMA: Final = "Problem"

_STATUSES: Final[dict[int, tuple[str, str]]] = {
    304: ("NotModified", "The client has this answer already."),
    400: ("BadRequest", "The request cannot be read or breaks a rule; `violations` names fields."),
    401: ("Unauthorized", "No key, or one that is not valid."),
    403: ("Forbidden", "The key lacks the scope."),
    404: ("NotFound", "There is no such thing."),
    409: ("Conflict", "The state of things forbids it; `reason` says which."),
    412: ("PreconditionFailed", "The row has changed since it was read."),
    413: ("ContentTooLarge", "The body is larger than is taken."),
    415: ("UnsupportedMediaType", "The body is not JSON in UTF-8."),
    429: ("TooManyRequests", "Too many requests, or more work than there is room for."),
    500: ("InternalServerError", "Something broke; the log has the `error_id`."),
    503: ("ServiceUnavailable", "The server cannot be reached or takes no new work now."),
    504: ("GatewayTimeout", "The time for this request ran out; it may still take effect."),
}
_OTHER: Final = ("Refused", "Refused for another reason.")
_RETRIED: Final = frozenset({429, 503})
_BODILESS: Final = frozenset({304})

_EXAMPLES: Final[dict[int, tuple[str, str, dict[str, str]]]] = {
    400: ("FIELD_INVALID", "page_size: must be at least 0", {"field": "page_size"}),
    401: ("CREDENTIALS_INVALID", "no such API key", {}),
    403: ("SCOPE_MISSING", "the key lacks the scope", {"scopes": "wallet.read"}),
    404: ("WALLET_NOT_FOUND", "the user has no wallet", {"user_id": "65f0c0ffee65f0c0ffee65f0"}),
    409: ("REQUEST_ID_REUSED", "used before for another request", {"request_id": "order-4711"}),
    412: ("ETAG_MISMATCH", "the row has changed since", {"etag": "7"}),
    413: ("MESSAGE_TOO_LARGE", "the body has too many bytes", {"limit_bytes": "4194304"}),
    415: ("MEDIA_TYPE_UNSUPPORTED", "the body must be application/json in UTF-8", {}),
    429: ("RATE_LIMITED", "too many requests from this key", {"limited": "key"}),
    500: ("INTERNAL", "something broke here", {"error_id": "9f0c2b7d11aa4e53"}),
    503: ("DEPENDENCY_UNAVAILABLE", "the server cannot be reached", {"dependency": "server"}),
    504: ("DEADLINE_EXCEEDED", "the time for this request ran out", {"limit_seconds": "30"}),
}
"""Reason, detail and metadata, for each status."""

_PROBLEM: Final[Json] = {
    "type": "object",
    "description": "Why a request was refused (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "For people. It may change."},
        "reason": {
            "type": "string",
            "description": "For programs: a name of `zaaz.common.v1.ErrorReason`.",
            "enum": list(REASONS),
        },
        "metadata": {
            "type": "object",
            "description": "What the reason is about.",
            "additionalProperties": {"type": "string"},
        },
        "violations": {
            "type": "array",
            "description": "Every field that breaks its rule.",
            "items": {
                "type": "object",
                "required": ["field", "description"],
                "properties": {
                    "field": {"type": "string", "examples": ["wallet.user_id"]},
                    "description": {"type": "string"},
                },
            },
        },
        "retry_delay": {
            "type": "string",
            "description": "How long to wait before trying again.",
            "examples": ["0.5s"],
        },
    },
}

_PARAMETERS: Final[dict[str, Json]] = {
    "Idempotency-Key": {
        "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
        "description": "Names this request: sent again with it, the first result comes back. "
        "Stands for `request_id`; where both are given they must be the same. Without either, "
        "a key is made up and told in the answer.",
    },
    "If-Match": {
        "schema": {"type": "string", "pattern": r'^(\*|(W/)?"[!#-~]*")$'},
        "description": "The `ETag` that was read, or the row's etag in quotes: refused with "
        "ETAG_MISMATCH if the row has changed since.",
    },
    "If-None-Match": {
        "schema": {"type": "string"},
        "description": "The `ETag` of an earlier answer: 304 if it is still the same.",
    },
    "Last-Event-ID": {
        "schema": {"type": "string", "maxLength": 500},
        "description": "The `id` of the last event received: the stream goes on behind it.",
    },
    "X-Request-Timeout": {
        "schema": {"type": "string", "pattern": r"^[1-9][0-9]{0,1}(\.[0-9]{1,3})?$"},
        "description": "How many seconds the caller waits, as in 2.5.",
    },
}

_HEADERS: Final[dict[str, str]] = {
    "X-Request-Id": "The request's id in all logs: the caller's, or one made up.",
    "ETag": "Stands for this answer, and for the row's etag.",
    "RateLimit": "What is left of the rate: `r` requests, all of them again in `t` seconds.",
    "RateLimit-Policy": "The rate: `q` requests in `w` seconds.",
    "Retry-After": "Seconds to wait.",
}


def components() -> Json:
    """Everything below `components` but the contract's schemas."""
    return {
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
            "ticket": {
                "type": "apiKey",
                "in": "query",
                "name": "ticket",
                "description": "A ticket of CreateStreamTicket, for EventSource, which sends "
                "no header.",
            },
        },
        "parameters": {
            name: {"name": name, "in": "header"} | parameter
            for name, parameter in _PARAMETERS.items()
        },
        "headers": {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in _HEADERS.items()
        },
        "responses": {name: _response(status) for status, (name, _) in _STATUSES.items()}
        | {_OTHER[0]: _response(0)},
        "schemas": {PROBLEM_SCHEMA: _PROBLEM},
    }


def header(name: str) -> Json:
    """A reference to a header that a request may bear."""
    return {"$ref": f"#/components/parameters/{name}"}


def refusals(statuses: list[int]) -> Json:
    """References to the refusals with these statuses, and to that for any other."""
    names = {str(status): _STATUSES[status][0] for status in statuses} | {"default": _OTHER[0]}
    return {key: {"$ref": f"#/components/responses/{name}"} for key, name in names.items()}


def _response(status: int) -> Json:
    made: Json = {"description": _STATUSES.get(status, _OTHER)[1]}
    if status in _RETRIED:
        made["headers"] = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
    if status not in _BODILESS:
        content: Json = {"schema": {"$ref": f"#/components/schemas/{PROBLEM_SCHEMA}"}}
        if status in _EXAMPLES:
            content["example"] = _example(status)
        made["content"] = {PROBLEM: content}
    return made


def _example(status: int) -> Json:
    reason, detail, metadata = _EXAMPLES[status]
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "reason": reason,
        "metadata": metadata,
    }
