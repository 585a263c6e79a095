"""What the browser side of the gateway is told from outside: ZAAZ_REST_* variables."""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ANY_ORIGIN: Final = "*"

KIB: Final = 1024
MIB: Final = 1024 * KIB


@dataclass(frozen=True, slots=True)
class SecuritySettings:
    """Limits and allow-lists. The defaults trust nobody."""

    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call, as in "https://app.example"; or just "*" for all."""
    trusted_proxies: tuple[Network, ...] = ()
    """Peers whose X-Forwarded-For and X-Forwarded-Proto are believed."""

    rate_per_second: float = 100.0
    """Requests that one client address may make in the long run; 0: any number."""
    key_rate_per_second: float = 200.0
    """The same for one bearer token."""

    max_url_bytes: int = 8 * KIB
    max_head_bytes: int = 32 * KIB
    max_headers: int = 100
    max_body_bytes: int = 4 * MIB
    """What the server takes in one message as well."""
    body_limits: tuple[tuple[str, int], ...] = ()
    """Other limits in bytes for paths that begin so; the longest beginning counts."""

    max_connections: int = 4_096
    max_connections_per_address: int = 1_024
    """Of one peer that is no trusted proxy."""

    head_timeout_seconds: float = 10.0
    """From a request's first byte to its last header."""
    body_window_seconds: float = 10.0
    min_body_bytes_per_second: int = 500
    """A body that comes slower for a whole window is given up."""
    write_timeout_seconds: float = 30.0
    """How long a client may read nothing of what waits for it."""
    idle_timeout_seconds: int = 30
    """How long a connection may stay open between two requests."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "SecuritySettings":
        """The settings in `environment`; ValueError with a line for each that is wrong."""
        values: dict[str, Any] = {}
        problems: list[str] = []
        for name in sorted(environment.keys() & NAMES):
            attribute, parse = _PARSERS[name]
            try:
                values[attribute] = parse(environment[name])
            except ValueError as error:
                problems.append(f"{name} {error}")
        if problems:
            raise ValueError("\n".join(problems))
        return cls(**values)


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(_words(text))
    if ANY_ORIGIN in origins and len(origins) > 1:
        raise ValueError("must be '*' alone or a list of origins")
    return tuple(origin if origin == ANY_ORIGIN else _origin(origin) for origin in origins)


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or text != f"{parts.scheme}://{parts.netloc}":
        raise ValueError(f"must list origins such as https://app.example; {text} is none")
    if not parts.hostname or "@" in text or text != text.lower():
        raise ValueError(f"must list origins in lower case and without a user; {text} is none")
    return text


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(word) for word in _words(text))
    except ValueError as error:
        raise ValueError(f"must list addresses or networks: {error}") from None


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1_000_000:
        raise ValueError("must be a number of requests a second up to 1000000; 0 is no limit")
    return rate


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 2**31:
        raise ValueError("must be a whole number above 0")
    return int(text)


_PARSERS: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = {
    "ZAAZ_REST_CORS_ORIGINS": ("cors_origins", _origins),
    "ZAAZ_REST_TRUSTED_PROXIES": ("trusted_proxies", _networks),
    "ZAAZ_REST_RATE_PER_SECOND": ("rate_per_second", _rate),
    "ZAAZ_REST_KEY_RATE_PER_SECOND": ("key_rate_per_second", _rate),
    "ZAAZ_REST_MAX_BODY_BYTES": ("max_body_bytes", _whole),
    "ZAAZ_REST_MAX_CONNECTIONS": ("max_connections", _whole),
    "ZAAZ_REST_MAX_CONNECTIONS_PER_ADDRESS": ("max_connections_per_address", _whole),
}

NAMES: Final = frozenset(_PARSERS)
"""Every variable that `from_environment` reads."""
