"""The book that a process goes by, kept fresh."""

import asyncio
import logging

from server.credits.prices.model import PriceBook
from server.credits.prices.store import PriceStore, Revision
from server.kernel.errors import DomainError, Reason
from server.mongo.errors import DatabaseUnavailable

REFRESH_SECONDS = 30
"""How late a version can be noticed: one set further ahead than this is in force to the moment."""

_log = logging.getLogger(__name__)


class PriceBookSource:
    """Holds the newest book that could be read.

    `refresh` once before serving, then `run` beside it.
    """

    def __init__(self, store: PriceStore, refresh_seconds: float = REFRESH_SECONDS) -> None:
        self._store = store
        self._refresh_seconds = refresh_seconds
        self._book: PriceBook | None = None
        self._revision: Revision | None = None

    @property
    def book(self) -> PriceBook:
        """The book in use; DEPENDENCY_UNAVAILABLE before there is one."""
        if self._book is None:
            raise DomainError(Reason.DEPENDENCY_UNAVAILABLE, "the prices have not been read yet")
        return self._book

    async def refresh(self) -> None:
        """Read the book if it has changed. DatabaseUnavailable leaves the old one in use."""
        # Asked first: rows that are added while the book is read cost a second reading,
        # never a missed one.
        revision = await self._store.revision()
        if revision != self._revision:
            self._book = await self._store.load_book()
            self._revision = revision

    async def run(self) -> None:
        """Refresh every 30 s until cancelled, whatever a refresh comes to."""
        while True:
            await asyncio.sleep(self._refresh_seconds)
            try:
                await self.refresh()
            except DatabaseUnavailable as error:
                _log.warning("prices not refreshed, the last ones stay in use: %s", error)
            except Exception:  # noqa: BLE001 - logged; prices that stand still beat none
                _log.exception("prices not refreshed, the last ones stay in use")
