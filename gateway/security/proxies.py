"""Who the client is: the peer, or whom a trusted proxy says it speaks for."""

import ipaddress
from collections.abc import Sequence

from gateway.security.asgi import ASGIApp, Receive, Scope, Send, headers
from gateway.security.settings import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

SCHEMES = frozenset({"http", "https"})


class TrustedProxies:
    """Replaces the scope's client and scheme by what trusted proxies forward, and only by that."""

    def __init__(self, app: ASGIApp, trusted: Sequence[Network]) -> None:
        self._app = app
        self._trusted = tuple(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._trusted:
            peer = address_of(scope["client"][0]) if scope.get("client") else None
            if is_trusted(peer, self._trusted):
                self._believe(scope)
        await self._app(scope, receive, send)

    def _believe(self, scope: Scope) -> None:
        """Changes `scope` in place: what wraps this middleware has to see it too."""
        client = self._client(b",".join(headers(scope, b"x-forwarded-for")).decode("latin-1"))
        if client is not None:
            scope["client"] = (str(client), 0)
        schemes = b",".join(headers(scope, b"x-forwarded-proto")).decode("latin-1").split(",")
        scheme = schemes[-1].strip().lower()
        if scheme in SCHEMES:
            scope["scheme"] = scheme

    def _client(self, forwarded: str) -> Address | None:
        """The nearest hop that is no trusted proxy. What lies behind it, it may have made up."""
        client = None
        for hop in reversed(forwarded.split(",")):
            address = address_of(hop.strip())
            if address is None:
                break
            client = address
            if not is_trusted(address, self._trusted):
                break
        return client


def address_of(text: str) -> Address | None:
    """An address, IPv4 out of its IPv6 wrapping; None for what is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_trusted(address: Address | None, networks: Sequence[Network]) -> bool:
    """Whether `address` lies in one of `networks`."""
    return address is not None and any(address in network for network in networks)
