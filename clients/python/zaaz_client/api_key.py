"""The API key that calls carry, from wherever it is kept."""

import logging
import os
from collections.abc import Callable
from typing import TypeAlias

from zaaz_client.errors import (
    ApiKeyExpired,
    ApiKeyRevoked,
    CredentialsInvalid,
    CredentialsMissing,
    ZaazError,
)
from zaaz_client.watched_file import WatchedFile

ApiKey: TypeAlias = str | Callable[[], str]
"""A key, or what is asked for the newest one before each call and must be quick."""

KeyMetadata: TypeAlias = tuple[tuple[str, str]]

_log = logging.getLogger("zaaz_client")


class KeyFile:
    """The key that stands in a file, alone: whoever replaces the file replaces the key.

    ZaazClient(target, KeyFile("/run/secrets/zaaz"))
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = WatchedFile(path)
        self._key = ""

    def __call__(self) -> str:
        """The newest. OSError; ValueError for a file without one."""
        if not self._key or self._file.is_changed:
            key = self._file.read().decode("ascii", "replace").strip()
            if not key:
                raise ValueError(f"{self._file.path} is empty")
            self._key = key
        return self._key


class Authorization:
    """The metadata that authorizes a call. ValueError for a key that no header could carry.

    Should asking for a key fail, the last one goes on being used, and a warning
    is logged.
    """

    def __init__(self, key: ApiKey) -> None:
        self._ask = key if callable(key) else None
        self._key = ""
        self._metadata: KeyMetadata | None = None
        self._is_failing = False
        if not callable(key):
            self._take(key)

    def open(self) -> None:
        """Ask once: raises whatever is wrong with the key, or with where it comes from."""
        if self._ask is not None:
            self._take(self._ask())

    def metadata(self) -> KeyMetadata:
        """Of the newest key. CredentialsMissing if there was never one."""
        if self._ask is not None:
            self._renew(self._ask)
        assert self._metadata is not None
        return self._metadata

    def is_replaced(self, used: KeyMetadata, error: ZaazError) -> bool:
        """Whether `error` refuses the key of a call, and there is another one by now."""
        if self._ask is None or not isinstance(error, _REFUSES_THE_KEY):
            return False
        return self.metadata() != used

    def _renew(self, ask: Callable[[], str]) -> None:
        try:
            key = ask()
            if key != self._key:
                self._take(key)
        except Exception as error:
            if self._metadata is None:
                raise CredentialsMissing(f"there is no API key: {error}") from error
            if not self._is_failing:  # once a time
                _log.warning("no newer API key is to be had, going on with the last: %s", error)
            self._is_failing = True
        else:
            self._is_failing = False

    def _take(self, key: str) -> None:
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise ValueError("api_key must be printable ASCII without spaces or line ends")
        self._key, self._metadata = key, (("authorization", f"Bearer {key}"),)


_REFUSES_THE_KEY = (CredentialsInvalid, ApiKeyExpired, ApiKeyRevoked)
