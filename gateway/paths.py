"""The path of a request: split first and decoded then, so that %2F never makes a segment."""

import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

from gateway.refusals import malformed

MAX_PATH_BYTES: Final = 8_192
"""A longer path is refused."""

_BROKEN_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")
_KEPT_ESCAPE: Final = re.compile("(%2[Ff])")
_DOTS: Final = frozenset({".", ".."})


def split(raw: bytes) -> list[str]:
    """The segments of a path as they were sent. A Refusal if it is no path."""
    if len(raw) > MAX_PATH_BYTES:
        raise malformed(f"the path has more than {MAX_PATH_BYTES} bytes")
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        raise malformed("the path has bytes that are not percent-encoded") from None
    return text[1:].split("/")


def decode(segments: list[str]) -> list[str]:
    """Each segment with its escapes resolved. A Refusal if that is no UTF-8."""
    return [decode_one(segment) if "%" in segment else segment for segment in segments]


def decode_one(text: str) -> str:
    """`text` with its escapes resolved."""
    if _BROKEN_ESCAPE.search(text):
        raise malformed("the address has a % that begins no escape")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise malformed("the address has escapes that are no UTF-8") from None


def decode_many(segments: Sequence[str]) -> str:
    """Several segments as one value; %2F stays, so that it differs from a slash."""
    parts = _KEPT_ESCAPE.split("/".join(segments))
    return "".join(part if index % 2 else unquote(part) for index, part in enumerate(parts))


def climbs(segments: Iterable[str]) -> bool:
    """Whether one is "." or "..", escaped or not: no path of this API has any."""
    return not _DOTS.isdisjoint(segments)
