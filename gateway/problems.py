"""Errors as `application/problem+json` (RFC 9457): the one shape of every refusal over HTTP."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import orjson

MEDIA_TYPE: Final = "application/problem+json"

HeaderList = list[tuple[bytes, bytes]]
Problem = tuple[int, HeaderList, bytes]
"""Status, headers and body of an answer."""
Violation = tuple[str, str]
"""A field's path in the request, and what would be right."""


def problem(
    status: int,
    title: str,
    detail: str,
    *,
    reason: str = "",
    metadata: Mapping[str, str] | None = None,
    violations: Sequence[Violation] = (),
    retry_seconds: float | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> Problem:
    """The answer that tells of an error. `reason` is an ErrorReason without its prefix."""
    content: dict[str, object] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
    }
    if reason:
        content["reason"] = reason
        content["metadata"] = dict(metadata or {})
    if violations:
        content["violations"] = [
            {"field": field, "description": description} for field, description in violations
        ]
    if retry_seconds is not None:
        content["retry_delay"] = f"{retry_seconds:g}s"
    body = orjson.dumps(content)
    own = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    return status, [*own, *headers], body
