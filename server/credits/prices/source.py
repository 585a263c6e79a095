"""The book that a process goes by, kept fresh."""

import asyncio
import logging
from typing import Final

from server.credits.prices.model import PriceBook
from server.credits.prices.store import PriceStore
from server.credits.prices.timeline import Histories
from server.kernel.errors import DomainError, Reason
from server.mongo.errors import DatabaseUnavailable

REFRESH_SECONDS: Final = 0.5
"""How often a change by another process is looked for; it is one small document that is read."""

_log = logging.getLogger(__name__)


class PriceBookSource:
    """Holds the newest book that could be read.

    `refresh` once before serving, then `run` beside it; `changed` after every
    change that this process makes.
    """

    def __init__(self, store: PriceStore, refresh_seconds: float = REFRESH_SECONDS) -> None:
        self._store = store
        self._refresh_seconds = refresh_seconds
        self._book: PriceBook | None = None
        self._histories = Histories()
        self._revision = 0
        self._refreshing = asyncio.Lock()

    @property
    def book(self) -> PriceBook:
        """The book in use; DEPENDENCY_UNAVAILABLE before there is one."""
        if self._book is None:
            raise DomainError(Reason.DEPENDENCY_UNAVAILABLE, "the prices have not been read yet")
        return self._book

    async def refresh(self) -> None:
        """Read what has changed. DatabaseUnavailable leaves the old book in use, and so does
        ValueError, for a row that makes no price.
        """
        async with self._refreshing:
            revision = await self._store.revision()
            if self._book is None or revision != self._revision:
                await self._read(revision)

    async def _read(self, revision: int) -> None:
        # Taken out while it is added to: what fails half-way is read anew, from the first row.
        histories, after = self._histories, self._revision
        self._histories, self._revision = Histories(), 0
        await self._store.add_histories(histories, after, revision)
        self._book = await asyncio.to_thread(_book, histories, self._book)
        self._histories, self._revision = histories, revision

    async def changed(self) -> None:
        """Refresh before the caller of a change is answered. What was changed stays so regardless.

        A book that cannot be read now is read by `run`.
        """
        await self._try_to_refresh()

    async def run(self) -> None:
        """Refresh twice a second until cancelled, whatever a refresh comes to."""
        while True:
            await asyncio.sleep(self._refresh_seconds)
            await self._try_to_refresh()

    async def _try_to_refresh(self) -> None:
        try:
            await self.refresh()
        except DatabaseUnavailable as error:
            _log.warning("prices not refreshed, the last ones stay in use: %s", error)
        except Exception:  # noqa: BLE001 - logged; prices that stand still beat none
            _log.exception("prices not refreshed, the last ones stay in use")


def _book(histories: Histories, before: PriceBook | None) -> PriceBook:
    return PriceBook(histories.prices(), before)
