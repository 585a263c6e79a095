"""A request's head before the application, and refusals as bytes on the wire."""

from collections import Counter
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway.problems import Problem, problem
from gateway.security.headers import ALWAYS, UNLESS_SET

CLOSE: Final = (b"connection", b"close")


def ambiguity(headers: list[tuple[bytes, bytes]], http_version: str) -> str:
    """Why two readers of this head could part its requests differently; "" if they cannot."""
    count = Counter(name for name, _ in headers)
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings and (codings != [b"chunked"] or http_version != "1.1"):
        return "no transfer-encoding is taken but chunked"
    if codings and count[b"content-length"]:
        return "content-length and transfer-encoding exclude each other"
    if count[b"content-length"] > 1:
        return "more than one content-length"
    if count[b"host"] > 1 or (not count[b"host"] and http_version == "1.1"):
        return "exactly one host is needed"
    return ""


def on_the_wire(refusal: Problem) -> bytes:
    """A refusal as the bytes that end a connection."""
    status, headers, body = refusal
    lines = [*headers, *ALWAYS, *UNLESS_SET, CLOSE]
    return b"".join([STATUS_LINE[status], *(b"%s: %s\r\n" % line for line in lines), b"\r\n", body])


def malformed(detail: str) -> Problem:
    """400: what cannot be read, or could be read in two ways."""
    return problem(400, "Bad Request", detail, reason="MALFORMED_MESSAGE")


def late(detail: str, limit_seconds: float) -> Problem:
    """408: a client that keeps others waiting."""
    metadata = {"limit_seconds": f"{limit_seconds:g}"}
    return problem(408, "Request Timeout", detail, reason="DEADLINE_EXCEEDED", metadata=metadata)


def too_long_url(limit_bytes: int) -> Problem:
    """414."""
    detail = f"the URL has more than {limit_bytes} bytes"
    metadata = {"limit_bytes": str(limit_bytes)}
    return problem(414, "URI Too Long", detail, reason="MESSAGE_TOO_LARGE", metadata=metadata)


def too_large_head(detail: str) -> Problem:
    """431."""
    return problem(431, "Request Header Fields Too Large", detail, reason="MESSAGE_TOO_LARGE")


def crowded() -> Problem:
    """503: no room for one more."""
    return problem(
        503,
        "Service Unavailable",
        "there are too many connections",
        reason="OVERLOADED",
        retry_seconds=1,
        headers=[(b"retry-after", b"1")],
    )
