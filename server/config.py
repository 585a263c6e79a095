"""Settings: every ZAAZ_* variable, read once at start.

`.env.example` lists them with their defaults; a test keeps the two in step.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from server.rpc.address import parse_address
from server.rpc.listening import TRUSTED_NETWORK
from server.rpc.logs import LEVELS

PREFIX: Final = "ZAAZ_"
CLIENT_SETTINGS: Final = frozenset(
    {"ZAAZ_TARGET", "ZAAZ_API_KEY", "ZAAZ_CA", "ZAAZ_CLIENT_CERT", "ZAAZ_CLIENT_KEY"}
)
"""Read by the SDK and its command, so they may be set beside the server's."""
GATEWAY_PREFIX: Final = "ZAAZ_REST_"
GATEWAY_SETTINGS: Final = frozenset({"ZAAZ_GRPC_TARGET", "ZAAZ_GRPC_CA", "ZAAZ_GRPC_SERVER_NAME"})
"""Read by the gateway, which refuses what it does not know under its prefix."""

MIN_SECRET_CHARACTERS: Final = 32
MAX_NOTICES: Final = 8
MAX_NOTICE_DAYS: Final = 365
REFLECTION_MODES: Final = ("auto", "on", "off")


class SettingsError(Exception):
    """Settings are wrong; each line names one and says what is right."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server is told from outside. Secrets stay out of its repr."""

    grpc_address: str = "127.0.0.1:50051"
    rest_address: str = "127.0.0.1:8080"
    metrics_address: str = "127.0.0.1:9464"
    data_dir: Path = Path("./var")
    mongo_url: str = field(default="", repr=False)
    mongo_database: str = "zaaz"
    secret: str = field(default="", repr=False)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    plaintext: str = ""
    reflection: str = "auto"
    log_level: str = "INFO"
    expiry_notice_days: tuple[int, ...] = (7, 1)
    demo_catalog: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """The settings in `environment`; SettingsError naming every one that is wrong."""
        given = {name: text for name, text in environment.items() if name.startswith(PREFIX)}
        problems = [_unknown(name) for name in sorted(given) if not _is_known(name)]
        values: dict[str, Any] = {}
        for name in sorted(given.keys() & NAMES):
            try:
                values[_attribute(name)] = _PARSERS[name](given[name])
            except ValueError as error:
                problems.append(f"{name} {error}")
        if not problems:
            settings = cls(**values)
            problems = _conflicts(settings)
        if problems:
            raise SettingsError("\n".join(problems))
        return settings


def _conflicts(settings: Settings) -> list[str]:
    problems = []
    if (settings.tls_cert is None) != (settings.tls_key is None):
        problems.append("ZAAZ_TLS_CERT and ZAAZ_TLS_KEY must be set both or neither")
    if settings.tls_client_ca is not None:
        problems += _client_ca_conflicts(settings)
    if settings.mongo_url and not settings.secret:
        problems.append(
            "ZAAZ_SECRET is required with ZAAZ_MONGO_URL: every server of one database needs "
            f"the same, of at least {MIN_SECRET_CHARACTERS} characters"
        )
    if settings.tls_cert is None and _is_exposed(settings):
        problems.append(
            "ZAAZ_GRPC_ADDRESS is reachable from other machines and keys would travel in the "
            "clear: set ZAAZ_TLS_CERT and ZAAZ_TLS_KEY, or ZAAZ_PLAINTEXT=trusted-network when "
            "something else encrypts"
        )
    return problems


def _client_ca_conflicts(settings: Settings) -> list[str]:
    problems = []
    if settings.tls_cert is None:
        problems.append("ZAAZ_TLS_CLIENT_CA needs ZAAZ_TLS_CERT and ZAAZ_TLS_KEY")
    if settings.rest_address:
        problems.append(
            "ZAAZ_TLS_CLIENT_CA shuts out the REST gateway, which has no certificate to show: "
            "set ZAAZ_REST_ADDRESS=off"
        )
    return problems


def _is_exposed(settings: Settings) -> bool:
    loopback = parse_address(settings.grpc_address).is_loopback
    return not loopback and settings.plaintext != TRUSTED_NETWORK


def _is_known(name: str) -> bool:
    return name in NAMES | CLIENT_SETTINGS | GATEWAY_SETTINGS or name.startswith(GATEWAY_PREFIX)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, NAMES, n=1)
    return f"{name} is no setting" + (f"; is {near[0]} meant?" if near else "")


def _attribute(name: str) -> str:
    return name.removeprefix(PREFIX).lower()


def _address(text: str) -> str:
    return str(parse_address(text))


def _address_or_off(text: str) -> str:
    return _address(text) if text else ""


def _rest_address(text: str) -> str:
    return "" if text in {"", "off"} else _address(text)


def _directory(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError("must be a directory")
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise ValueError(f"must be a directory; {text} is a file")
    return path


def _file(text: str) -> Path | None:
    if not text:
        return None
    path = Path(text)
    if not path.is_file():
        raise ValueError(f"must be a file that can be read; {text} is none")
    return path


def _mongo_url(text: str) -> str:
    if text and not text.startswith(("mongodb://", "mongodb+srv://")):
        raise ValueError("must be empty or begin with mongodb:// or mongodb+srv://")
    return text


def _mongo_database(text: str) -> str:
    if not text or len(text.encode()) > 63 or set(text) & set('/\\. "$\0'):
        raise ValueError('must be a database name: at most 63 bytes, none of /\\. "$')
    return text


def _secret(text: str) -> str:
    if text and len(text) < MIN_SECRET_CHARACTERS:
        raise ValueError(f"must have at least {MIN_SECRET_CHARACTERS} characters")
    return text


def _days(text: str) -> tuple[int, ...]:
    days = [part.strip() for part in text.split(",")] if text else []
    if len(days) > MAX_NOTICES or not all(
        day.isascii() and day.isdigit() and 1 <= int(day) <= MAX_NOTICE_DAYS for day in days
    ):
        raise ValueError(
            f"must be at most {MAX_NOTICES} numbers of days from 1 to {MAX_NOTICE_DAYS},"
            " with commas between"
        )
    return tuple(sorted({int(day) for day in days}, reverse=True))


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError("must be one of " + ", ".join(repr(choice) for choice in choices))
        return text

    return parse


_PARSERS: Final[Mapping[str, Callable[[str], object]]] = {
    "ZAAZ_GRPC_ADDRESS": _address,
    "ZAAZ_REST_ADDRESS": _rest_address,
    "ZAAZ_METRICS_ADDRESS": _address_or_off,
    "ZAAZ_DATA_DIR": _directory,
    "ZAAZ_MONGO_URL": _mongo_url,
    "ZAAZ_MONGO_DATABASE": _mongo_database,
    "ZAAZ_SECRET": _secret,
    "ZAAZ_TLS_CERT": _file,
    "ZAAZ_TLS_KEY": _file,
    "ZAAZ_TLS_CLIENT_CA": _file,
    "ZAAZ_PLAINTEXT": _one_of("", TRUSTED_NETWORK),
    "ZAAZ_REFLECTION": _one_of(*REFLECTION_MODES),
    "ZAAZ_LOG_LEVEL": _one_of(*LEVELS),
    "ZAAZ_EXPIRY_NOTICE_DAYS": _days,
    "ZAAZ_DEMO_CATALOG": _file,
}

NAMES: Final = frozenset(_PARSERS)
"""Every setting of the server."""
