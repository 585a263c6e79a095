"""Addresses to listen at: "host:port", "[::1]:port"."""

from dataclasses import dataclass
from ipaddress import ip_address

_MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port. Port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Only this machine reaches it. A name other than localhost may point anywhere."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse_address(text: str) -> Address:
    """`text` as an Address; ValueError saying what is right."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("must have an IPv6 host in brackets, as in [::1]:50051")
    if not colon or not host or any(character.isspace() for character in host):
        raise ValueError("must be host:port, as in 127.0.0.1:50051")
    if not (port.isascii() and port.isdigit()) or int(port) > _MAX_PORT:
        raise ValueError(f"must end in a port from 0 to {_MAX_PORT}")
    return Address(host, int(port))
