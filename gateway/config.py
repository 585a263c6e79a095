"""What the gateway is told from outside: ZAAZ_* variables, read once at start.

A server's variables may stand in the same environment; only an unknown name
that begins with ZAAZ_REST_ is refused here.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from gateway.security import NAMES as SECURITY_NAMES
from gateway.security import SecuritySettings

OWN_PREFIX: Final = "ZAAZ_REST_"
TRUSTED_NETWORK: Final = "trusted-network"
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")

_MAX_PORT: Final = 65_535


class SettingsError(Exception):
    """Settings are wrong; each line names one and says what is right."""


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
        """Only this machine reaches it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to listen, which server to speak to, and the limits of browsers."""

    address: Address = Address("127.0.0.1", 8080)
    grpc_target: str = "127.0.0.1:50051"
    grpc_ca: Path | None = None
    """PEM of what the server's certificate is trusted by; None: the system's certificates."""
    grpc_server_name: str = ""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    plaintext: str = ""
    log_level: str = "INFO"
    security: SecuritySettings = field(default_factory=SecuritySettings)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """The settings in `environment`; SettingsError naming every one that is wrong."""
        problems = [_unknown(name) for name in sorted(environment) if _is_unknown(name)]
        values: dict[str, Any] = {}
        for name in sorted(environment.keys() & _PARSERS.keys()):
            attribute, parse = _PARSERS[name]
            try:
                values[attribute] = parse(environment[name])
            except ValueError as error:
                problems.append(f"{name} {error}")
        try:
            values["security"] = SecuritySettings.from_environment(environment)
        except ValueError as error:
            problems.append(str(error))
        if not problems:
            settings = cls(**values)
            problems = _conflicts(settings)
        if problems:
            raise SettingsError("\n".join(problems))
        return settings


def _is_unknown(name: str) -> bool:
    return name.startswith(OWN_PREFIX) and name not in NAMES


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, NAMES, n=1)
    return f"{name} is no setting" + (f"; is {near[0]} meant?" if near else "")


def _conflicts(settings: Settings) -> list[str]:
    problems = []
    if (settings.tls_cert is None) != (settings.tls_key is None):
        problems.append("ZAAZ_REST_TLS_CERT and ZAAZ_REST_TLS_KEY must be set both or neither")
    exposed = not settings.address.is_loopback and settings.plaintext != TRUSTED_NETWORK
    if settings.tls_cert is None and exposed:
        problems.append(
            "ZAAZ_REST_ADDRESS is reachable from other machines and keys would travel in the "
            "clear: set ZAAZ_REST_TLS_CERT and ZAAZ_REST_TLS_KEY, or "
            "ZAAZ_PLAINTEXT=trusted-network when something else encrypts"
        )
    return problems


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("must have an IPv6 host in brackets, as in [::1]:8080")
    if not colon or not host or any(character.isspace() for character in host):
        raise ValueError("must be host:port, as in 127.0.0.1:8080")
    if not (port.isascii() and port.isdigit()) or int(port) > _MAX_PORT:
        raise ValueError(f"must end in a port from 0 to {_MAX_PORT}")
    return Address(host, int(port))


def _target(text: str) -> str:
    if not text or any(character.isspace() for character in text):
        raise ValueError("must be the server's gRPC address, as in 127.0.0.1:50051")
    return text


def _file(text: str) -> Path | None:
    if not text:
        return None
    path = Path(text)
    if not path.is_file():
        raise ValueError(f"must be a file that can be read; {text} is none")
    return path


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError("must be one of " + ", ".join(repr(choice) for choice in choices))
        return text

    return parse


_PARSERS: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = {
    "ZAAZ_REST_ADDRESS": ("address", _address),
    "ZAAZ_REST_TLS_CERT": ("tls_cert", _file),
    "ZAAZ_REST_TLS_KEY": ("tls_key", _file),
    "ZAAZ_GRPC_TARGET": ("grpc_target", _target),
    "ZAAZ_GRPC_CA": ("grpc_ca", _file),
    "ZAAZ_GRPC_SERVER_NAME": ("grpc_server_name", str),
    "ZAAZ_PLAINTEXT": ("plaintext", _one_of("", TRUSTED_NETWORK)),
    "ZAAZ_LOG_LEVEL": ("log_level", _one_of(*LEVELS)),
}

NAMES: Final = frozenset(_PARSERS) | SECURITY_NAMES
"""Every variable that the gateway reads."""
