"""The book of endpoints that a process goes by, kept fresh."""

import asyncio
import logging
from typing import Final

from server.catalog.endpoints import EndpointBook
from server.catalog.store import CatalogStore, Revision
from server.mongo.errors import DatabaseUnavailable

REFRESH_SECONDS: Final = 0.5
"""How late other processes notice a change."""

_log = logging.getLogger(__name__)


class EndpointBookSource:
    """Holds the newest book that could be read; an empty one before `refresh`.

    `refresh` once before serving and after every change, and `run` beside it for the
    changes that other processes make.
    """

    def __init__(self, store: CatalogStore, refresh_seconds: float = REFRESH_SECONDS) -> None:
        self._store = store
        self._refresh_seconds = refresh_seconds
        self._revision: Revision | None = None
        self._reading = asyncio.Lock()
        self._away = False
        self.book = EndpointBook({}, (), ())

    async def refresh(self) -> None:
        """Read the book if it has changed. DatabaseUnavailable leaves the old one in use."""
        # One that has begun may have missed the caller's change, so it is not joined but awaited.
        async with self._reading:
            # Asked first: what changes while the book is read costs a second reading, never a
            # missed one.
            revision = await self._store.revision()
            if revision != self._revision:
                self.book = await self._store.load_book()
                self._revision = revision

    async def changed(self) -> None:
        """After a change of this process: it counts from now on, or from the next look.

        Never raises: the change has been made, whatever becomes of the reading.
        """
        try:
            await self.refresh()
        except DatabaseUnavailable as error:
            if not self._away:
                _log.warning("endpoints not refreshed, the last ones stay in use: %s", error)
            self._away = True
        except Exception:  # noqa: BLE001 - logged; a book that stands still beats none
            _log.exception("endpoints not refreshed, the last ones stay in use")
        else:
            self._away = False

    async def run(self) -> None:
        """Look for changes of other processes twice a second until cancelled."""
        while True:
            await asyncio.sleep(self._refresh_seconds)
            await self.changed()
