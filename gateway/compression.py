"""Content codings of answers, where they pay."""

import gzip
from functools import lru_cache
from typing import Final

import brotli

MIN_BYTES: Final = 1_024
"""Less fits one packet either way."""
BROTLI_QUALITY: Final = 4
GZIP_LEVEL: Final = 5
"""Beyond these a millisecond is paid for every percent."""
MAX_KNOWN_HEADERS: Final = 256
"""Browsers send a handful."""

_PREFERRED: Final = ("br", "gzip")


@lru_cache(MAX_KNOWN_HEADERS)
def coding_for(accept_encoding: str) -> str:
    """The best coding that a client takes: "br", "gzip" or "" for none."""
    weights = dict(map(_weighted, accept_encoding.lower().split(",")))
    rest = weights.get("*", 0.0)
    best = max(_PREFERRED, key=lambda coding: weights.get(coding, rest))
    return best if weights.get(best, rest) > 0 else ""


def compress(body: bytes, coding: str) -> bytes:
    """`body` in that coding, the same bytes each time."""
    if coding == "br":
        return bytes(brotli.compress(body, quality=BROTLI_QUALITY))
    return gzip.compress(body, compresslevel=GZIP_LEVEL, mtime=0)


def _weighted(item: str) -> tuple[str, float]:
    coding, _, parameters = item.partition(";")
    name, _, weight = parameters.partition("=")
    if name.strip() != "q":
        return coding.strip(), 1.0
    try:
        return coding.strip(), float(weight)
    except ValueError:
        return coding.strip(), 0.0
